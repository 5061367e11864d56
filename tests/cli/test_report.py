"""`smlt report`: a run's figures, and the bundle from which it can be run again."""

from __future__ import annotations

import hashlib
import json
import zipfile

from tests.cli.conftest import LINEAR


def trained(main, name="mine", *more):
    code, out, _ = main(*LINEAR, "--steps", "5", "--name", name, "-q", "-o", "json", *more)
    assert code == 0
    return json.loads(out)


def test_a_report_has_the_summary_versions_and_medians(linear, main) -> None:
    summary = trained(main)
    code, out, _ = main("report", "mine", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["summary"] == summary
    assert document["seed"] == 0
    assert document["versions"]["numpy"]
    assert document["steps_p50"]["seconds"] == summary["step_seconds_p50"]
    code, out, _ = main("report")
    assert code == 0
    assert "mine: task.py:Linear on local, seed 0" in out
    assert summary["weights_sha256"][:12] in out


def test_a_bundle_has_all_that_the_run_is_and_digests_of_it(linear, main) -> None:
    summary = trained(main)
    assert main("report", "mine", "--bundle", "mine.zip")[0] == 0
    with zipfile.ZipFile(linear / "mine.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert set(files) == {
        "README.txt", "SHA256SUMS", "catalog.json", "code/smlt-run.toml", "code/task.py", "events.jsonl",
        "summary.json", "versions.json",
    }  # fmt: skip
    assert json.loads(files["summary.json"]) == summary
    assert files["code/task.py"] == (linear / "task.py").read_bytes()
    assert json.loads(files["events.jsonl"].splitlines()[-1])["kind"] == "finished"
    sums = dict(line.split()[::-1] for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "SHA256SUMS"}
    main("report", "mine", "--bundle", "again.zip")
    assert (linear / "again.zip").read_bytes() == (linear / "mine.zip").read_bytes()


def test_what_is_in_a_bundle_runs_again_to_the_same_bits_and_prices(linear, main, tmp_path, monkeypatch) -> None:
    summary = trained(
        main, "mine", "--set", 'job.params.note="quote \' and \\\\"', "--set", "backend.usd_per_gib_s=1", "-y"
    )
    main("report", "mine", "--bundle", "mine.zip")
    with zipfile.ZipFile(linear / "mine.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    monkeypatch.chdir(tmp_path / "unpacked" / "code")
    code, out, err = main("train", "-c", "smlt-run.toml", "--catalog", "../catalog.json", "-q", "-y", "-o", "json")
    assert code == 0, err
    again = json.loads(out)
    assert again["weights_sha256"] == summary["weights_sha256"]
    assert again["catalog_sha256"] == summary["catalog_sha256"]


def test_a_run_that_is_not_there_has_no_report(linear, main) -> None:
    code, _, err = main("report", "mine")
    assert code == 2
    assert "there are no runs" in err


def test_a_bundle_that_cannot_be_written_is_said(linear, main) -> None:
    trained(main)
    code, _, err = main("report", "--bundle", "nowhere/mine.zip")
    assert code != 0
    assert "nowhere/mine.zip cannot be written" in err
