from collections import Counter

import pytest

from m1lite.callbacks.tokens import TrainedTokens, counted


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_was_read_sampled_and_trained_on(campaign, epochs):
    run, counts = campaign(update_epochs=epochs), Counter()
    run.rollout.play = counted(run.rollout.play, counts)
    log = run.fit(TrainedTokens(counts), steps=2)
    turns = [
        turn
        for batch in log.batches
        for episode in batch.episodes
        for trajectory in episode.trajectories.values()
        for turn in trajectory.turns
    ]
    read, sampled = sum(len(turn.prompt_ids) for turn in turns), sum(len(turn.reply_ids) for turn in turns)
    assert counts == {"read": read, "sampled": sampled, "trained": epochs * (read + sampled)}
