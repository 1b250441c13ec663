import signal

from medsegdiff.training import processes


def test_followers_heed_no_signal_before_the_leader_has_saved(config, discs, monkeypatch):
    class Following:
        step = 0

        def __init__(self, config):
            pass

        def follow_the_leader(self):
            pass

    usual, handlers = signal.getsignal(signal.SIGTERM), []

    def tell(_):
        handlers.append(signal.getsignal(signal.SIGTERM))
        return [False, False]

    monkeypatch.setattr(processes.exchange, "tell", tell)
    monkeypatch.setattr(processes, "Trainer", Following)
    processes.follow(config, discs)
    assert len(handlers) == 2  # whether to go on, and that all is saved
    assert usual not in handlers
