from medsegdiff.config.training import TrainingConfig


def test_several_averages_may_be_asked_for():
    assert TrainingConfig(ema_rate="0.9999, 0.99").ema_rates == ["0.9999", "0.99"]
    assert TrainingConfig(ema_rate="").ema_rates == []
