"""Who a run is: what run.json says, and whether it is the same run."""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

from ffn_bench import errors
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder

FORMAT = 1
"""Of the run folder."""

PROTOCOL = 2
"""Of how runs are measured and compared; results of different versions are never put side by side."""

REPAIR = "restore it, or train anew in another folder with force=true"


def check_identity(folder: Folder, identity: dict[str, Any], run: schema.TrainConfig) -> None:
    """Raise `UserError` (status 4) unless what run.json says is this run."""
    then = {key: value for key, value in identity["config"].items() if key not in fingerprint.NOT_RESULTS}
    check_same(folder, fingerprint.result_keys(run), then)


def identity(
    run: schema.TrainConfig, device: str, data_sha256: str, chance: dict[str, float]
) -> dict[str, Any]:
    """What run.json says: enough to tell whether two runs are the same one, and to repeat one.

    `chance` is what a constant prediction comes to, by kind of metric: what a failed run counts as in a mean.
    """
    import platform

    import torch

    from ffn_bench import __version__

    return {
        "format": FORMAT,
        "protocol": PROTOCOL,
        "fingerprint": fingerprint.fingerprint(run),
        "config": schema.flatten(run),
        "data_sha256": data_sha256,
        "chance": chance,
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {
            "ffn_bench": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": platform.platform(),
        "command": sys.argv,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def check_same(folder: Folder, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Raise `UserError` (status 4), naming what differs, unless a run may go on in `folder`.

    `now` is compared with what was noted `then`; keys that only one of them has count, too.
    """
    now = json.loads(json.dumps(now))  # tuples are lists in a file
    if different := [key for key in {**then, **now} if then.get(key) != now.get(key)]:
        key = different[0]
        more = f" (and {', '.join(different[1:4])})" if different[1:] else ""
        what = f"holds another run: {key} was {then.get(key)}, now {now.get(key)}{more}"
        todo = "it is never overwritten: use another name, or force=true, which trains anew beside it"
        raise UserError(str(folder), what, todo, errors.RUN_FOLDER)


def unowned(folder: Folder, name: str) -> UserError:
    """The mistake of a file under one of our names where no run has begun."""
    what = "is there, and no run.json that says whose it is"
    return UserError(f"{folder}/{name}", what, "use another name", errors.RUN_FOLDER)
