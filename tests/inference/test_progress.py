from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.inference.progress import ProgressBar


def sampled(progress, id, members, steps):
    for _ in range(steps):
        progress.step([id] * members)


def test_ensembles_of_one_size_are_counted_to_the_end():
    with ProgressBar(["a", "b"], SamplingConfig(members=3, steps=2)) as progress:
        assert progress.total == 12
        for count, id in enumerate("ab", start=1):
            sampled(progress, id, 3, 2)
            progress.settled(id)
            assert (progress.n, progress.total) == (6 * count, 12)


def test_of_adaptive_ensembles_the_total_follows_those_that_have_settled():
    with ProgressBar(list("abcd"), SamplingConfig(members="2..10", steps=2)) as progress:
        assert progress.total == 80  # nothing is known yet
        sampled(progress, "a", 3, 2)
        sampled(progress, "b", 4, 2)
        assert progress.total == 80
        progress.settled("a")
        assert progress.total == 4 * 6
        sampled(progress, "b", 2, 2)
        progress.settled("b")
        assert progress.total == 4 * (6 + 12) / 2
        sampled(progress, "c", 10, 2)
        sampled(progress, "d", 10, 2)
        progress.settled("c")
        assert progress.total == progress.n == 58  # never below what was done
        progress.settled("d")
        assert progress.total == progress.n == 58
