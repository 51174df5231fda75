"""vLLM servers as an engine: ``vllm serve`` in other processes or on other machines, one or more replicas of a base.

Token ids go both ways and log-probs are the server's own. Adapters are pushed under a name that says policy, version
and content, so that a reply cannot come from other weights than it is recorded under. No vllm is imported here.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from m1lite.engines.adapter_folders import AdapterFolders, content_digest
from m1lite.engines.admission import servers_of
from m1lite.engines.base import EngineError, Generation, draw_all
from m1lite.engines.checks import check_policy, check_request, check_state_dict, nonnegative_seed
from m1lite.engines.fitting import check_adapter
from m1lite.engines.fleet import Fleet
from m1lite.engines.replica import Replica, ReplicaRefusedError, generation_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from m1lite.engines.base import Request

_PUSH_SECONDS = 120.0
"""Deadline of one push to one replica."""
_NOBODY = "nobody"


class VersionMismatchError(EngineError):
    """Two replicas that do not serve the same versions."""


class ServerEngine:
    """Serves LoRA policies on one base with the servers that hold it.

    Until its first adapter a policy is the base itself, under version 0. The version before the current one stays on
    the servers until the next push, because another rank may still draw with it. Base weights cannot be replaced.

    Args:
        model: a name or directory; the servers must have been started on it.
        policies: names that are served.
        urls: of all rollout servers, as ``http://host:8000``; those of other bases are passed over.
        max_model_len: tokens of context, the reply included.
        eos_token_ids: a reply ends with the first of these; ``None`` takes the model's generation config.
        adapter_directory: where adapters are handed over, under the same path for every server; ``None`` is a temporary
            one, for servers on this machine.
        api_key_variable: name of the environment variable with the servers' ``--api-key``.
        deadline_seconds: for one reply.
        health_seconds: a server that does not answer a health check in this time is lost.
        start_seconds: servers that are still starting have so long to get ready.

    Raises:
        EngineError: if no server serves the base, or one cannot be a rollout engine; named with the remedy.
        ValueError: if no policy or no server is named, or the servers cannot see the adapters.
    """

    draws_together = False

    def __init__(
        self,
        model: str | Path,
        policies: Sequence[str],
        *,
        urls: Sequence[str],
        max_model_len: int = 1024,
        eos_token_ids: Sequence[int] | None = None,
        adapter_directory: str | Path | None = None,
        api_key_variable: str | None = None,
        deadline_seconds: float = 300.0,
        health_seconds: float = 30.0,
        start_seconds: float = 60.0,
    ) -> None:
        if not policies:
            raise ValueError("`policies` is empty; name the policies that this engine serves.")
        key = None if api_key_variable is None else _read_key(api_key_variable)
        replicas = [Replica(url, key=key) for url in dict.fromkeys(urls)]
        _check_places(replicas, adapter_directory)
        self.model, self.max_model_len = str(model), max_model_len
        self._config = AutoConfig.from_pretrained(model)
        self.eos_token_ids = frozenset(_end_ids(self.model) if eos_token_ids is None else eos_token_ids)
        if not self.eos_token_ids:
            raise ValueError(f"`eos_token_ids` is not given and {self.model!r} names none; pass them.")
        own: list[Replica] = []
        try:
            own = servers_of(replicas, self.model, max_model_len=max_model_len, wait_seconds=start_seconds)
        finally:
            for replica in replicas:
                if replica not in own:
                    replica.hang_up()
        self._fleet = Fleet(own, deadline_seconds=deadline_seconds, health_seconds=health_seconds)
        self._folders = AdapterFolders(adapter_directory)
        self._versions = dict.fromkeys(policies, 0)
        self._names: dict[str, str] = {}  # policy to what the servers call its adapter
        self._before: dict[str, str] = {}  # policy to what its adapter was called before
        self._under_way: dict[int, Request] = {}
        self._num_tickets = 0

    # ---- replies ---------------------------------------------------------------------------------

    def submit(self, request: Request) -> int:
        """Send one request to the replica that has least to do.

        Raises:
            EngineError: if the policy is unknown or is shown pictures, the prompt does not fit, or a sampling value
                is out of range; the replies under way go on.
        """
        vocab_size = self._config.get_text_config().vocab_size
        if request.media:
            raise EngineError(
                f"Policy {request.policy!r} is shown {len(request.media)} pictures, which rollout servers do not take "
                "yet; use the engine in this process."
            )
        check_request(request, policies=self._versions, max_model_len=self.max_model_len, vocab_size=vocab_size)
        self._num_tickets += 1
        sampling = {
            "temperature": request.sampling.temperature,
            "max_tokens": min(request.sampling.max_new_tokens, self.max_model_len - len(request.prompt_ids)),
            "seed": nonnegative_seed(request.seed),
            "stop_token_ids": sorted(self.eos_token_ids),
        }
        name = self._names.get(request.policy, self._names.get(_NOBODY, self.model))
        self._fleet.submit(self._num_tickets, generation_body(name, list(request.prompt_ids), sampling))
        self._under_way[self._num_tickets] = request
        return self._num_tickets

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Return the replies that came, after at most ``wait`` seconds if there is none.

        Raises:
            EngineError: if no replica is left, or one refuses a request; what was under way is dropped then.
        """
        try:
            drawn = self._fleet.step(wait)
        except BaseException:
            self.abort()
            raise
        return [(ticket, self._generation(ticket, reply.token_ids, reply.logprobs)) for ticket, reply in drawn]

    def _generation(self, ticket: int, token_ids: list[int], logprobs: list[float]) -> Generation:
        return Generation(
            token_ids=token_ids,
            logprobs=logprobs,
            policy_version=self._versions[self._under_way.pop(ticket).policy],
            finish_reason="stop" if token_ids[-1] in self.eos_token_ids else "length",
        )

    @property
    def num_unfinished(self) -> int:
        """How many replies are under way."""
        return len(self._under_way)

    def abort(self) -> None:
        """Drop everything that is under way, here and on the servers."""
        self._under_way.clear()
        self._fleet.abort()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request, in the order given.

        Raises:
            EngineError: if a request is refused or no replica is left; the engine can be used afterwards.
        """
        return draw_all(self, requests)

    # ---- weights ---------------------------------------------------------------------------------

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Push these LoRA tensors to every replica and serve ``policy`` with them from now on.

        A replica that was lost and answers again gets all adapters and is used again.

        Raises:
            EngineError: if the policy is unknown, replies are under way, the adapter does not fit, or a server refuses
                it; the policy then stays as it was.
            VersionMismatchError: if a replica lacks an adapter that was pushed.
        """
        check_policy(policy, self._versions)
        self._demand_idle()
        check_adapter(policy, tensors, config, self._shapes)
        self._take_back()
        name = f"{policy}@{version}-{content_digest(tensors, config)}"
        if name != self._names.get(policy):
            self._push(name, tensors, config, f"adapter of policy {policy!r} at version {version}")
            oldest = self._before.pop(policy, None)
            if policy in self._names:
                self._before[policy] = self._names[policy]
            self._names[policy] = name
            self._forget(oldest)
        self._versions[policy] = version
        self._serve_the_base(tensors, config)
        self._compare_replicas()

    def _push(self, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], what: str) -> None:
        path = str(self._folders.write(name, tensors, config))
        try:
            self._fleet.everywhere(partial(Replica.load_adapter, name=name, path=path, seconds=_PUSH_SECONDS))
        except ReplicaRefusedError as refusal:
            self._forget(name)  # where another replica took it
            raise EngineError(f"A rollout server cannot serve the {what}: {refusal}") from refusal

    def _serve_the_base(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """Give policies without an adapter one of zeros, and take it away when all have their own.

        vLLM's LoRA product on a CPU takes the last adapter for rows that have none (lora_ops.py of 0.32).
        """
        if self._versions.keys() <= self._names.keys():
            self._forget(self._names.pop(_NOBODY, None))
        elif _NOBODY not in self._names:
            zeros = {key: torch.zeros_like(tensor) for key, tensor in tensors.items()}
            name = f"{_NOBODY}@0-{content_digest(zeros, config)}"
            self._push(name, zeros, config, "adapter of zeros for policies without one")
            self._names[_NOBODY] = name

    def _forget(self, name: str | None) -> None:
        if name is None or name in self._names.values():
            return
        self._fleet.everywhere(partial(Replica.unload_adapter, name=name, seconds=_PUSH_SECONDS))
        self._folders.remove(name)

    def _take_back(self) -> None:
        for replica in self._fleet.returned():
            try:
                (replica,) = servers_of([replica], self.model, max_model_len=self.max_model_len, wait_seconds=0.0)
                for name in self._names.values():
                    replica.load_adapter(name, str(self._folders.directory / name), _PUSH_SECONDS)
            except EngineError as error:
                self._fleet.lost[replica] = str(error)
            else:
                self._fleet.take_back(replica)

    def _compare_replicas(self) -> None:
        wanted = set(self._names.values())
        for replica, served in self._fleet.everywhere(partial(Replica.describe, seconds=_PUSH_SECONDS)).items():
            if not wanted <= served.adapters:
                raise VersionMismatchError(
                    f"Two replicas have different versions: {replica.url} serves {sorted(served.adapters)} and lacks "
                    f"{sorted(wanted - served.adapters)}; does somebody else unload adapters there?"
                )

    def load_base(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Accept the base weights that the servers have, and no others.

        vLLM reads whole weights into a running server from a folder only, and leaves the copy of a tied head old.

        Raises:
            EngineError: if replies are under way, the weights are not the whole ``state_dict()``, or they differ from
                those at ``model``.
        """
        self._demand_idle()
        new = {name: tensor.detach() for name, tensor in weights}
        check_state_dict(new, self._shapes)
        model = AutoModelForCausalLM.from_pretrained(self.model, dtype="auto")
        for name, tensor in model.state_dict().items():
            if not torch.equal(tensor.to(new[name].dtype), new[name].cpu()):
                raise EngineError(
                    f"The new base weights differ from those at {self.model!r} that the servers were started on, first "
                    f"in {name!r}; a server keeps its base: save the new one and start the servers on it."
                )
        self._versions.update(dict.fromkeys(self._versions.keys() - self._names.keys(), version))

    def _demand_idle(self) -> None:
        if self._under_way:
            raise EngineError(
                f"{len(self._under_way)} replies are under way; load weights between rollouts, or `abort` first."
            )

    @cached_property
    def _shapes(self) -> dict[str, torch.Size]:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self._config)
        return {name: tensor.shape for name, tensor in model.state_dict().items()}

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return dict(self._versions)

    def sleep(self) -> None:
        """Do nothing; servers have memory of their own."""

    def close(self) -> None:
        """Take this engine's adapters off the servers, which run on; the engine cannot be used afterwards."""
        if not self._versions:
            return
        self.abort()
        self._versions.clear()
        names, self._names = [*self._names.values(), *self._before.values()], {}
        with suppress(EngineError):  # no server is left
            for name in names:
                self._forget(name)
        self._fleet.close()
        self._folders.close()


def _check_places(replicas: Sequence[Replica], adapter_directory: str | Path | None) -> None:
    if not replicas:
        raise ValueError("`urls` is empty; name at least one server, as `engine.urls=[http://127.0.0.1:8000]`.")
    far = [replica.url for replica in replicas if replica.host not in ("localhost", "127.0.0.1", "::1")]
    if far and adapter_directory is None:
        raise ValueError(
            f"`adapter_directory` is not given and {far} are not on this machine; name a directory that they and this "
            "process see under the same path."
        )


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key:
        raise ValueError(f"`api_key_variable` names {variable!r}, which is not set in the environment.")
    return key


def _end_ids(model: str) -> list[int]:
    try:
        ids = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        ids = AutoConfig.from_pretrained(model).eos_token_id
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
