"""What the analysis commands share: how arguments are rewritten, and where files may go."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ffn_bench.command_line import analysis
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder

PATHS = ["a b", "it's", "x=y", "${HOME}", "{a}", "sw=eep,2", "über/ø", "a:b", "(1)", "*.x", "a#b"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["run", "runs", "save"])
def test_hydra_reads_a_quoted_path_as_it_was_typed(
    key: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(path.replace("/", "_")).mkdir()
    path = path.replace("/", "_")
    (override,) = OverridesParser.create().parse_overrides([analysis.quote(f"{key}={path}")])
    assert override.value() == path


@pytest.mark.parametrize(("text", "value"), [("run=a,b c", ["a", "b c"]), ("runs=[a,b]", ["a", "b"])])
def test_hydra_reads_paths_between_commas_as_a_list(
    text: str, value: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (override,) = OverridesParser.create().parse_overrides([analysis.quote(text)])
    assert override.value() == value


def test_words_between_commas_become_a_list_for_the_keys_that_take_one() -> None:
    assert analysis.comma_list("by=optimizer,model.activation", "by") == "by=[optimizer,model.activation]"
    assert analysis.comma_list("optimizers=sgd,lecture/adam", "by", "optimizers") == (
        "optimizers=[sgd,lecture/adam]"
    )
    for argument in ("by=optimizer", "metric=a,b", "by=[a,b]", "by=", "nearby=a,b"):
        assert analysis.comma_list(argument, "by") == argument


@pytest.mark.parametrize(
    ("save", "status", "what"),
    [
        ("", 2, "is empty"),
        ("  ", 2, "is empty"),
        ("file", 4, "is a file"),
        ("file/below", 4, "is a file"),
        ("link/below", 4, "is a broken link"),
        ("new/../other", 4, "'..'"),
        ("n" * 300, 4, "too long"),
        ("/proc/x", 4, "cannot be written to"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_and_nothing_created(
    save: str, status: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=what) as refused:
        analysis.report_folder(save, Folder(tmp_path))
    assert refused.value.status == status
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_beside_this_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert analysis.report_folder("../paper", Folder(tmp_path)).path == Path("../paper")
    assert analysis.report_folder(None, Folder(tmp_path, ("compare",))).path == tmp_path / "compare"
    assert not (tmp_path / "paper").exists() and not (tmp_path / "compare").exists()


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 5), (errno.EACCES, 4)])
def test_what_a_disk_refuses_is_one_line(number: int, status: int) -> None:
    with (
        pytest.raises(UserError, match="report: cannot be written") as refused,
        analysis.writing(Folder(Path("report"))),
    ):
        raise OSError(number, "No")
    assert refused.value.status == status
