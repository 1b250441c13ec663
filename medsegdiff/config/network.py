"""What a network is made of: options, checked and completed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from medsegdiff.base.bounds import bounded, check_bounds, check_fields
from medsegdiff.base.errors import InputError

# Width of each level over the base width, for the image sizes of the published code.
_CHANNEL_MULT = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (1, 1, 2, 2, 4, 4)}
_WIDEST, _MOST_LEVELS = 8192, 12
_MOST_TOKENS = 1024
_V2_OPTIONS = (
    *("image_input", "anchor_levels", "anchor_detach"),
    *("ssformer", "ssformer_blocks", "ssformer_heads", "spectrum", "attention_norm"),
)

Version = Literal["new", "v1", "v2"]


@dataclass(frozen=True)
class NetworkConfig:
    """The network's options, by their published names.

    Args:
        image_size: height and width of the network's input, in pixels; divisible by 32
        image_channels: channels of the image (3: RGB)
        num_classes: classes, background included (2: binary segmentation); each foreground class is a channel of the
            mask, and all channels are diffused together
        num_channels: base width of the denoiser; divisible by 32
        num_res_blocks: residual blocks per level
        channel_mult: width of each level as a multiple of the base width, such as "1,2,3,4"; default: by image size
        attention_resolutions: feature-map sizes with attention, such as "16,8"
        num_heads: attention heads
        num_head_channels: width of a head; overrides `num_heads` unless -1
        num_heads_upsample: heads on the upward path; -1: as `num_heads`
        use_new_attention_order: split q, k, v before the heads, not after
        use_scale_shift_norm: the timestep's embedding scales and shifts the norm instead of being added
        resblock_updown: change the resolution by residual blocks instead of plain convolutions
        learn_sigma: predict the variance too
        class_cond: condition on a class label
        num_label_classes: labels known to class conditioning
        dropout: dropout probability of the denoiser's residual blocks
        cond_dropout: dropout probability of whole feature maps in the conditioning network's contracting path
        version: new (anchor conditioning), v1 (dynamic conditioning with the FF-Parser) or v2 (uncertain anchor and
            spectrum-space transformer, after the paper of MedSegDiff-V2); the options below belong to v2
        image_input: the denoiser sees the image beside the noisy mask (choice) or, false, the mask alone (the paper's
            figure)
        anchor_levels: resolutions at which the anchor enters (choice): 1, the full one, or 2, the half one too
        anchor_detach: the anchor does not train the conditioning network (choice; version new is so)
        ssformer: how the two networks' deepest maps meet: spectrum (cross-attention in the frequency domain, paper),
            cross (plain softmax cross-attention) or none
        ssformer_blocks: blocks of two cross-attentions (choice)
        ssformer_heads: attention heads of each (choice)
        spectrum: what acts on the affinity's spectrum: nbp (neural band-pass filter, paper) or sine (the paper's first
            version)
        attention_norm: whether softmax normalises the affinity of spectrum, or nothing does (choice)
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
    cond_dropout: float = 0.5
    version: Version = "new"
    image_input: bool = True
    anchor_levels: int = bounded(1, 1, 2)
    anchor_detach: bool = False
    ssformer: Literal["spectrum", "cross", "none"] = "spectrum"
    ssformer_blocks: int = bounded(4, 1, 64)
    ssformer_heads: int = bounded(4, 1, 256)
    spectrum: Literal["nbp", "sine"] = "nbp"
    attention_norm: Literal["none", "softmax"] = "none"

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in (("image_size", self.image_size), ("num_channels", self.num_channels)):
            if value % 32:
                near = round(value / 32) * 32
                raise InputError(f"`{name}` {value}: must be divisible by 32; the nearest is {near}")
        for width in self.level_widths:
            check_bounds(f"`num_channels` {self.num_channels}, the widest level's", width, 1, _WIDEST)
        for name, share in (("dropout", self.dropout), ("cond_dropout", self.cond_dropout)):
            if not 0 <= share < 1:
                raise InputError(f"`{name}` {share}: must be at least 0 and less than 1")
        if self.image_size % 2 ** (len(self.level_widths) - 1):
            raise InputError(
                f"`channel_mult` {self.channel_mult}: {len(self.level_widths)} levels do not divide "
                f"`image_size` {self.image_size} into whole pixels; use fewer levels"
            )
        widths, factors = self.level_widths, self.attention_factors
        for width in {widths[-1], *(width for level, width in enumerate(widths) if 2**level in factors)}:
            for heads in (self.heads(width), self.heads(width, upsample=True)):
                if heads < 1 or width % heads:
                    raise InputError(
                        f"attention over {width} channels does not divide into its heads; "
                        "change `num_heads` or `num_head_channels`"
                    )
        self._check_v2()

    def _check_v2(self) -> None:
        """Refuse options without effect, and what the spectrum-space transformer cannot be built of."""
        belongs = {name: ("version", "v2") for name in _V2_OPTIONS}
        if self.version == "v2":
            belongs = {name: ("ssformer", "spectrum") for name in ("spectrum", "attention_norm")}
            belongs.update({name: ("ssformer", "spectrum or cross") for name in ("ssformer_blocks", "ssformer_heads")})
        for name, (owner, wanted) in belongs.items():
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if value != default and getattr(self, owner) not in wanted.split(" or "):
                raise InputError(f"`{name}` {value}: has an effect with `{owner}` {wanted} only; leave out one of them")
        if self.anchor_levels > len(self.level_widths):
            raise InputError(f"`anchor_levels` {self.anchor_levels}: `channel_mult` has only {len(self.level_widths)}")
        if self.version != "v2" or self.ssformer == "none":
            return
        deepest, tokens = self.level_widths[-1], self.deepest_map**2
        if deepest % self.ssformer_heads:
            raise InputError(
                f"`ssformer_heads` {self.ssformer_heads}: does not divide the {deepest} channels of the deepest level"
            )
        if tokens > _MOST_TOKENS:
            raise InputError(
                f"`ssformer` {self.ssformer}: the deepest map has {tokens} pixels, and each attends to all; at most "
                f"{_MOST_TOKENS} can; give `channel_mult` more levels"
            )

    @property
    def mask_channels(self) -> int:
        """Channels of a mask: one for each class but the background."""
        return self.num_classes - 1

    @property
    def mask_shape(self) -> tuple[int, int, int]:
        """(M, S, S) of a mask."""
        return self.mask_channels, self.image_size, self.image_size

    @property
    def deepest_size(self) -> int:
        """Height and width of the conditioning network's deepest maps, in pixels."""
        return self.image_size // 32

    @property
    def deepest_map(self) -> int:
        """Height and width of the denoiser's deepest maps, in pixels."""
        return self.image_size // 2 ** (len(self.level_widths) - 1)

    @property
    def seen_channels(self) -> int:
        """Channels of the image that the denoiser sees beside the noisy mask."""
        return self.image_channels if self.image_input else 0

    @property
    def in_channels(self) -> int:
        """Input channels of the denoiser: the image's and the noisy mask's."""
        return self.seen_channels + self.mask_channels

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
    return "v1" if str(version) == "1" else str(version)
