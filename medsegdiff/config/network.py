"""What a network is made of: options, checked and completed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from medsegdiff.base.bounds import bounded, check_bounds, check_fields
from medsegdiff.base.errors import InputError
from medsegdiff.config.choices import check_choices

# Width of each level over the base width, for the image sizes of the published code.
_CHANNEL_MULT = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (1, 1, 2, 2, 4, 4)}
_WIDEST, _MOST_LEVELS = 8192, 12


Version = Literal["new", "v1"]


@dataclass(frozen=True)
class NetworkConfig:
    """The network's options, by their published names.

    Args:
        image_size: height and width of the network's input, in pixels; divisible by 32
        image_channels: channels of the image (3: RGB)
        num_classes: classes, background included (2: binary segmentation); each of the others is a channel of the
            mask, and all channels are diffused together
        num_channels: base width of the denoiser; divisible by 32
        num_res_blocks: residual blocks a level
        channel_mult: width of each level over the base width, as "1,2,3,4"; empty: by image size
        attention_resolutions: feature-map sizes with attention, as "16,8"
        num_heads: attention heads
        num_head_channels: width of a head; overrides num_heads unless -1
        num_heads_upsample: heads on the upward path; -1: as num_heads
        use_new_attention_order: split q, k, v before the heads, not after
        use_scale_shift_norm: the timestep scales and shifts the norm instead of being added
        resblock_updown: residual blocks change the resolution instead of plain convolutions
        learn_sigma: predict the variance too
        class_cond: condition on a class label
        num_label_classes: labels known to class conditioning
        dropout: dropout probability of the denoiser's residual blocks
        version: new (anchor conditioning) or v1 (dynamic conditioning with the FF-Parser)
    """

    image_size: int = bounded(256, 32, 2048)
    image_channels: int = bounded(3, 1, 256)
    num_classes: int = bounded(2, 2, 256)
    num_channels: int = bounded(128, 32, 2048)
    num_res_blocks: int = bounded(2, 1, 32)
    channel_mult: str = ""
    attention_resolutions: str = "16"
    num_heads: int = bounded(1, 1, 256)
    num_head_channels: int = bounded(-1, -1, 8192)
    num_heads_upsample: int = bounded(-1, -1, 256)
    use_new_attention_order: bool = False
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    learn_sigma: bool = True
    class_cond: bool = False
    num_label_classes: int = bounded(2, 1, 100000)
    dropout: float = 0.0
    version: Version = "new"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.image_size % 32:
            near = round(self.image_size / 32) * 32
            raise InputError(f"`image_size` {self.image_size}: must be divisible by 32; the nearest is {near}")
        if self.num_channels % 32:
            near = round(self.num_channels / 32) * 32
            raise InputError(f"`num_channels` {self.num_channels}: must be divisible by 32; the nearest is {near}")
        check_choices(self)
        for width in self.level_widths:
            check_bounds(f"`num_channels` {self.num_channels}, the widest level's", width, 1, _WIDEST)
        if not 0 <= self.dropout < 1:
            raise InputError(f"`dropout` {self.dropout}: must be at least 0 and less than 1")
        if self.image_size % 2 ** (len(self.level_widths) - 1):
            raise InputError(
                f"`channel_mult` {self.channel_mult}: {len(self.level_widths)} levels do not divide "
                f"`image_size` {self.image_size} into whole pixels; use fewer levels"
            )
        for width in {width for width, factor in self._attended()} | {self.level_widths[-1]}:
            for heads in (self.heads(width), self.heads(width, upsample=True)):
                if heads < 1 or width % heads:
                    raise InputError(
                        f"attention over {width} channels does not divide into its heads; "
                        "change `num_heads` or `num_head_channels`"
                    )

    @property
    def mask_channels(self) -> int:
        """Channels of a mask: one for each class but the background."""
        return self.num_classes - 1

    @property
    def deepest_size(self) -> int:
        """Height and width of the conditioning network's deepest maps, in pixels."""
        return self.image_size // 32

    @property
    def in_channels(self) -> int:
        """Input channels of the denoiser: the image's and the noisy mask's."""
        return self.image_channels + self.mask_channels

    @property
    def out_channels(self) -> int:
        """Output channels of the denoiser: the noise and, when learned, the variance value."""
        return self.mask_channels * (2 if self.learn_sigma else 1)

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of each level, from full resolution down."""
        mult = _parse_integers("channel_mult", self.channel_mult)
        if not mult:
            nearest = min(_CHANNEL_MULT, key=lambda size: (abs(size - self.image_size), size))
            mult = _CHANNEL_MULT[nearest]
        return tuple(m * self.num_channels for m in mult)

    @property
    def attention_factors(self) -> frozenset[int]:
        """Downsampling factors of the levels that attend."""
        sizes = _parse_integers("attention_resolutions", self.attention_resolutions)
        return frozenset(self.image_size // size for size in sizes)

    @property
    def unmet_attention(self) -> list[int]:
        """Listed attention resolutions that no level of this network has."""
        factors = {2**level for level in range(len(self.level_widths))}
        sizes = _parse_integers("attention_resolutions", self.attention_resolutions)
        return [size for size in sizes if self.image_size // size not in factors]

    def heads(self, width: int, upsample: bool = False) -> int:
        """Attention heads at a level `width` channels wide."""
        if self.num_head_channels != -1:
            return width // self.num_head_channels if self.num_head_channels > 0 else 0
        return self.num_heads_upsample if upsample and self.num_heads_upsample != -1 else self.num_heads

    def _attended(self) -> list[tuple[int, int]]:
        levels = [(width, 2**level) for level, width in enumerate(self.level_widths)]
        return [(width, factor) for width, factor in levels if factor in self.attention_factors]


def _parse_integers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = (0,)
    if len(numbers) > _MOST_LEVELS or any(not 1 <= number <= _WIDEST for number in numbers):
        raise InputError(
            f'`{option}` "{text[:40]}": must be positive integers with commas between, as "16,8", '
            f"at most {_MOST_LEVELS} of them and {_WIDEST} the highest"
        )
    return numbers


def published_version(version: Optional[str]) -> str:
    """Our name of a published `version`: "new" stays, "1" and "v1" are "v1"."""
    return {"new": "new", "1": "v1", "v1": "v1"}.get(str(version), str(version))
