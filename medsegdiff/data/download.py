"""Public datasets, downloaded from where their owners publish them."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import NamedTuple, Optional

from medsegdiff.base.errors import InputError
from medsegdiff.base.files import clear_leftovers, exclusive, make_folder, size, writing
from medsegdiff.base.ownership import Ledger, digest
from medsegdiff.base.screen import Bar
from medsegdiff.data.archives import unpack

_BY = "data download"
_TRIES = 5  # without a further byte
_PAUSE = 2.0  # seconds before the second try, doubled for each further one
_BLOCK = 1 << 14  # bytes; where a connection breaks off, what has come of one is lost
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_PAST_THE_END = 416


class Dataset(NamedTuple):
    """Where a dataset is published, and its archives' checksums."""

    base_url: str
    archives: dict[str, str]
    """`algorithm:hex` by path below the URL. The owners publish none: users of the archives agree on these."""


DATASETS = {
    "isic2016": Dataset(
        "https://isic-challenge-data.s3.amazonaws.com",
        {
            "2016/ISBI2016_ISIC_Part1_Training_Data.zip": "md5:2029f387e62dcc062b1370b1efc1f7fb",
            "2016/ISBI2016_ISIC_Part1_Training_GroundTruth.zip": "md5:fbd77134298f3511479a37bac93109c7",
            "2016/ISBI2016_ISIC_Part1_Test_Data.zip": "md5:efebcaeaae751007401a40a60d391f93",
            "2016/ISBI2016_ISIC_Part1_Test_GroundTruth.zip": "md5:492a7711a2e19b96114cab6c96bd1ad5",
        },
    ),
    "isic2017": Dataset(
        "https://isic-challenge-data.s3.amazonaws.com",
        {
            "2017/ISIC-2017_Training_Data.zip": "md5:a14a7e622c67a358797ae59abb8a0b0c",
            "2017/ISIC-2017_Training_Part1_GroundTruth.zip": "md5:77fdbeb6fbec4139937224416b250f4c",
            "2017/ISIC-2017_Validation_Data.zip": "md5:8d6419d942112f709894c0d82f6c9038",
            "2017/ISIC-2017_Validation_Part1_GroundTruth.zip": "md5:64d3e68fa2deeb8a5e89aa8dec2efd44",
            "2017/ISIC-2017_Test_v2_Data.zip": "md5:5f6a0b5e1f2972bd1f5ea02680489f09",
            "2017/ISIC-2017_Test_v2_Part1_GroundTruth.zip": "md5:b1742de6bd257faca3b2b21a4aa3b781",
        },
    ),
    "isic2018": Dataset(
        "https://isic-challenge-data.s3.amazonaws.com",
        {
            "2018/ISIC2018_Task1-2_Training_Input.zip": "sha256:"
            "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
            "2018/ISIC2018_Task1_Training_GroundTruth.zip": "sha256:"
            "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
            "2018/ISIC2018_Task1-2_Validation_Input.zip": "sha256:"
            "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
            "2018/ISIC2018_Task1_Validation_GroundTruth.zip": "sha256:"
            "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
            "2018/ISIC2018_Task1-2_Test_Input.zip": "sha256:"
            "e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
            "2018/ISIC2018_Task1_Test_GroundTruth.zip": "sha256:"
            "2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
        },
    ),
    "msd-hippocampus": Dataset(
        "https://msd-for-monai.s3-us-west-2.amazonaws.com",
        {"Task04_Hippocampus.tar": "md5:9d24dba78a72977dbd1d2e110310f31b"},
    ),
}


def download(name: str, folder: Path, base_url: Optional[str] = None) -> list[Path]:
    """Download and unpack a dataset of `DATASETS`; returns the folders of its archives, in `folder`.

    Each archive unpacks into a folder of its name, which appears whole or not at all, with `source.json` in it: URL and
    checksum. What is there already is not fetched again, and what was fetched in part is continued, by a later call,
    too. An archive is removed once it is unpacked.

    Args:
        name: the dataset's.
        folder: what to write into; files there that are not this function's own are left alone.
        base_url: of a mirror with the same archives; None: where the owners publish them.

    Raises:
        InputError: an archive cannot be had, has another checksum or holds what no dataset does, files are in the way,
            or the disk refuses.
    """
    dataset, folder = DATASETS[name], make_folder(Path(folder))
    base = (base_url or dataset.base_url).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InputError(f"`base_url` {base}: must begin with https:// or http://")
    with exclusive(folder):
        clear_leftovers(folder)
        ledger = Ledger(folder, _BY)
        for path, checksum in dataset.archives.items():
            _get(f"{base}/{path}", checksum, ledger)
    return [folder / Path(path).stem for path in dataset.archives]


def _get(url: str, checksum: str, ledger: Ledger) -> None:
    file = Path(url.rpartition("/")[2])
    source = f"{file.stem}/source.json"
    done = next((group for group in ledger.groups if source in group.files), None)
    if done and ledger.owns(source) and all((ledger.folder / name).is_file() for name in done.files):
        return
    part = ledger.folder / f".{file.name}.part"
    _fetch(url, part, checksum)
    with ledger.together(source) as stage:
        target = stage / file.stem
        target.mkdir()
        record = {"url": url, "checksum": checksum, "bytes": part.stat().st_size, "files": unpack(part, target)}
        (stage / source).write_text(json.dumps(record, indent=1), encoding="utf-8")
    part.unlink()


def _fetch(url: str, part: Path, checksum: str) -> None:
    """Make `part` the file at `url`, from what there is of it on.

    Only the checksum says when it is whole: servers break off, and are wrong about lengths.
    """
    import requests

    algorithm, _, expected = checksum.partition(":")
    failures, trouble = 0, ""
    while failures < _TRIES:
        time.sleep(_PAUSE * 2 ** (failures - 1) if failures else 0)
        before, over, trouble = size(part), False, ""
        try:
            _append(url, part, before)
            over = size(part) == before
        except requests.HTTPError as error:
            status, trouble = error.response.status_code, f"{error.response.status_code} {error.response.reason}"
            over = status == _PAST_THE_END
            if not over and status not in _PASSING:
                raise InputError(f"{url}: the server answers {trouble}; give a mirror's as `base_url`") from None
        except requests.RequestException as error:
            trouble = type(error).__name__
        finally:
            if not size(part):
                part.unlink(missing_ok=True)
        if over or not trouble:
            actual = digest(part, hashlib.new(algorithm)) if size(part) else "of an empty file"
            if actual == expected:
                return
            if over:
                part.unlink(missing_ok=True)
                raise InputError(
                    f"{url}: its {algorithm} is {actual}, not {expected}: damaged, or another file; it is removed: "
                    "run the same command again, or give a mirror's as `base_url`"
                )
        failures = 0 if size(part) > before else failures + 1
    raise InputError(
        f"{url}: cannot be downloaded ({trouble}); check the network, or give a mirror's as `base_url`; "
        "what has arrived is kept, and the same command continues"
    )


def _append(url: str, part: Path, before: int) -> None:
    """Add to `part`, of `before` bytes, what follows them at `url`; where a server cannot do that, all of it anew."""
    import requests

    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={before}-"} if before else {})}
    with writing(part), part.open("ab") as file, Bar(0, part.stem[1:], "MB", after=3) as bar:
        response = requests.get(url, headers=headers, stream=True, timeout=60)
        response.raise_for_status()
        if response.status_code == 200:  # all of it; a part is 206
            file.truncate(0)
        bar.total = int(response.headers.get("content-length", 0)) / 1e6
        for block in response.iter_content(_BLOCK):
            file.write(block)
            bar.update(len(block) / 1e6)
