import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.config.network import NetworkConfig, published_version


@pytest.mark.parametrize(
    ("size", "multiples"),
    [
        (64, (1, 2, 3, 4)),
        (128, (1, 1, 2, 3, 4)),
        (256, (1, 1, 2, 2, 4, 4)),
        (512, (1, 1, 2, 2, 4, 4)),
        (32, (1, 2, 3, 4)),
        (96, (1, 2, 3, 4)),
        (160, (1, 1, 2, 3, 4)),
        (224, (1, 1, 2, 2, 4, 4)),
        (1024, (1, 1, 2, 2, 4, 4)),
    ],
)
def test_level_widths_follow_the_image_size(size, multiples):
    assert NetworkConfig(image_size=size, num_channels=64).level_widths == tuple(64 * m for m in multiples)


def test_level_widths_can_be_given():
    assert NetworkConfig(image_size=64, num_channels=32, channel_mult="1, 3,2").level_widths == (32, 96, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 70}, "image_size 70: must be divisible by 32; the nearest is 64"),
        ({"image_size": 0}, "image_size 0: must be at least 32"),
        ({"num_channels": 48}, "num_channels 48: must be divisible by 32; the nearest is"),
        ({"num_channels": -32}, "num_channels -32: must be at least 32"),
        ({"attention_resolutions": "16;8"}, 'attention_resolutions "16;8": must be positive integers'),
        ({"attention_resolutions": "0"}, 'attention_resolutions "0": must be positive integers'),
        ({"channel_mult": "1,x"}, 'channel_mult "1,x": must be positive integers'),
        (
            {"image_size": 96, "channel_mult": "1,1,1,1,1,1,1"},
            "channel_mult 1,1,1,1,1,1,1: 7 levels do not divide image_size 96 into whole pixels",
        ),
        ({"num_heads": 3}, "attention over .* channels does not divide into its heads"),
        ({"num_head_channels": 48}, "attention over .* channels does not divide into its heads"),
        ({"num_head_channels": 0}, "does not divide into its heads"),
        ({"num_heads_upsample": 5}, "does not divide into its heads"),
        ({"version": "2"}, "version 2: must be one of new, v1, v2"),
        ({"image_channels": 0}, "image_channels 0: must be at least 1"),
        ({"num_classes": 1}, "num_classes 1: must be at least 2"),
        ({"num_classes": 257}, "num_classes 257: must be at most 256"),
        ({"num_res_blocks": 0}, "num_res_blocks 0: must be at least 1"),
        ({"num_res_blocks": 10**8}, "num_res_blocks 100000000: must be at most 32"),
        ({"image_size": 10**9}, "image_size 1000000000: must be at most 2048"),
        (
            {"num_channels": 2048, "channel_mult": "1,8"},
            "num_channels 2048, the widest level's 16384: must be at most",
        ),
        ({"channel_mult": "1,1000000000"}, 'channel_mult "1,1000000000": must be positive integers'),
        ({"attention_resolutions": "1," * 10**5}, "attention_resolutions .*at most 12 of them"),
        ({"attention_resolutions": 16}, "attention_resolutions 16: must be text; in YAML put it in quotes"),
        ({"image_size": "64"}, "image_size 64: must be a whole number"),
        ({"anchor_levels": 2}, "anchor_levels 2: has an effect with version v2 only"),
        ({"version": "v1", "image_input": False}, "image_input False: has an effect with version v2 only"),
        (
            {"version": "v2", "ssformer": "cross", "spectrum": "sine"},
            "spectrum sine: has an effect with ssformer spectrum only",
        ),
        (
            {"version": "v2", "ssformer": "none", "ssformer_blocks": 2},
            "ssformer_blocks 2: has an effect with ssformer spectrum or cross only; leave out one of them",
        ),
        ({"version": "v2", "ssformer": "none", "ssformer_heads": 2}, "ssformer_heads 2: has an effect with ssformer"),
        ({"version": "v2", "ssformer_heads": 3}, "ssformer_heads 3: does not divide the 512 channels"),
        ({"version": "v2", "channel_mult": "1"}, "ssformer spectrum: the deepest map has 4096 pixels"),
        (
            {"version": "v2", "ssformer": "none", "channel_mult": "1", "anchor_levels": 2},
            "anchor_levels 2: channel_mult has only 1",
        ),
        ({"dropout": 1.0}, "dropout 1.0: must be at least 0 and less than 1"),
    ],
)
def test_impossible_options_are_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        NetworkConfig(**{"image_size": 64, "num_channels": 128, **options})


def test_attention_that_no_level_meets_is_told():
    config = NetworkConfig(image_size=64, attention_resolutions="16,8,4,20,128")
    assert config.attention_factors >= {4, 8, 16}
    assert config.unmet_attention == [4, 20, 128]
    assert NetworkConfig(image_size=64, attention_resolutions="").attention_factors == frozenset()
    assert NetworkConfig(image_size=256, attention_resolutions="16").unmet_attention == []


def test_heads():
    assert NetworkConfig(num_heads=4).heads(256) == 4
    assert NetworkConfig(num_heads=4).heads(256, upsample=True) == 4
    assert NetworkConfig(num_heads=4, num_heads_upsample=2).heads(256, upsample=True) == 2
    assert NetworkConfig(num_heads=4, num_head_channels=64).heads(256) == 4
    assert NetworkConfig(num_heads=1, num_heads_upsample=1, num_head_channels=64).heads(512, upsample=True) == 8


def test_channels_in_and_out():
    config = NetworkConfig(image_channels=4, num_classes=4)
    assert (config.in_channels, config.out_channels) == (7, 6)
    assert NetworkConfig(num_classes=4, learn_sigma=False).out_channels == 3
    assert [NetworkConfig(num_classes=count).mask_channels for count in (2, 3, 256)] == [1, 2, 255]


def test_the_denoiser_of_v2_may_see_the_mask_alone():
    config = NetworkConfig(version="v2", image_input=False, num_classes=4)
    assert (config.seen_channels, config.in_channels) == (0, 3)
    assert NetworkConfig(version="v2").seen_channels == 3


def test_published_versions():
    assert [published_version(name) for name in ("new", "1", 1, "v1", "2")] == ["new", "v1", "v1", "v1", "2"]
