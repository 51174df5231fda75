"""The reference for the collaboration loop: all agents act round by round, one phase after the other, in team order."""

from random import Random

from m1lite.collaboration.loop import derive_seed
from m1lite.records import Episode, Message, MessageKind, Status, TurnKind


class Seat:
    def __init__(self, agent, sample, visible):
        self.agent, self.state = agent, agent.start(sample)
        self.peers, self.num_read, self.ran = visible[agent.name], 0, False


class LockStep:
    """One episode by itself; ``board`` is a plain list of what was written, in that order."""

    def __init__(self, sample, index, agents, *, seed, topology):
        self.base_seed = derive_seed(seed, sample.id, index)
        visible = topology([agent.name for agent in agents], Random(derive_seed(seed, sample.id, "topology")))
        self.seats, self.board = [Seat(agent, sample, visible) for agent in agents], []
        self.episode = Episode(sample=sample, index=index, seed=self.base_seed, visible=visible, messages=self.board)

    def play(self, generate, run_tools, aggregate, *, max_rounds=5, max_calls=5):
        last = 0
        self.speak(self.seats, TurnKind.PLAN, 0, generate, max_calls if max_rounds else 0)
        for number in range(1, max_rounds + 1):
            for seat in self.seats:
                self.execute(seat, number, run_tools, max_calls)
            speakers = [seat for seat in self.seats if not seat.state.answered and (seat.ran or seat.state.problem)]
            if not speakers:
                break
            last = number
            self.speak(speakers, TurnKind.COMMUNICATE, number, generate, 0 if number == max_rounds else max_calls)
        silent = [seat for seat in self.seats if not seat.state.answered]
        self.speak(silent, TurnKind.ANSWER, last + 1, generate, 0)
        self.episode.trajectories = {seat.agent.name: seat.state.trajectory for seat in self.seats}
        self.episode.answer = aggregate(self.episode.trajectories)
        return self.episode

    def execute(self, seat, number, run_tools, max_calls):
        trajectory, steps, seat.ran = seat.state.trajectory, seat.state.steps, False
        if not steps:
            return
        dropped = [call for step in steps for call in step]
        if len(trajectory.calls) < max_calls:
            step, seat.ran = steps.pop(0), True
            dropped = step[max_calls - len(trajectory.calls) :]
            for call in step[: len(step) - len(dropped)]:
                (found,) = run_tools([(self.episode.sample, call)])
                trajectory.calls.append(call)
                trajectory.results.append(found)
                self.result(seat, number, call, found.text if found.error is None else found.error, found.status)
        else:
            steps.clear()
        for call in dropped:
            text = f"dropped: an agent may run at most {max_calls} calls"
            self.result(seat, number, call, text, Status.CALL_LIMIT)

    def result(self, seat, number, call, text, status):
        kind, author = MessageKind.RESULT, seat.agent.name
        self.board.append(Message(author=author, round=number, kind=kind, text=text, call=call, status=status))

    def speak(self, seats, kind, number, generate, max_calls):
        """All read before any writes."""
        asked = []
        for seat in seats:
            new, seat.num_read = self.board[seat.num_read :], len(self.board)
            own = [m for m in new if m.author == seat.agent.name and m.kind is MessageKind.RESULT]
            peers = [m for m in new if m.author in seat.peers and m.kind is not MessageKind.ANSWER]
            num_turns, num_calls = len(seat.state.trajectory.turns), len(seat.state.trajectory.calls)
            seat.state.calls_left = max(0, max_calls - num_calls)
            turn_seed = derive_seed(self.base_seed, seat.agent.name, num_turns)
            request = seat.agent.ask(seat.state, kind, number, own, peers, turn_seed)
            if request is not None:
                asked.append((seat, request))
        replies = generate([request for _, request in asked])
        for (seat, _), reply in zip(asked, replies, strict=True):
            self.board.append(seat.agent.read(seat.state, reply))
