"""Tables on the terminal and as files, compared with what is written by hand."""

import io
import json

import pytest
from rich.console import Console
from rich.progress import Progress

from callbacks.reporting.decode_report import decode_report
from callbacks.reporting.result_table import Column, Report, ResultTable

NAN = float("nan")
ROWS = {
    "target only": {"target_calls_per_image": 3.0, "speedup": 1.0, "fid": 31.25},
    "speculative (gamma 2)": {
        "target_calls_per_image": 1.5,
        "speedup": 2.5,
        "token_agreement": NAN,
        "hidden": 7.0,
        "fid": None,  # what a file of an interrupted benchmark says of a number that is not finite
        "fid_change": -0.04,
    },
}


def test_decoders_as_files(tmp_path):
    report = decode_report("bench", "2 x 6 images", {"cfg": 0.5, "reference": None}, ROWS)
    files = report.write(tmp_path / "new", with_csv=True)
    assert [path.name for path in files] == ["bench.json", "bench.md", "bench.csv"]
    text, markdown, table = (path.read_text() for path in files)
    found = json.loads(text)
    assert list(found) == ["name", "facts", "settings", "rows"]
    assert found["rows"]["speculative (gamma 2)"]["token_agreement"] is None
    assert markdown == (
        "# Decoders\n\n2 x 6 images.\n\n"
        "| decoder | target calls | speed-up | token agreement | Frechet distance | change of the Frechet distance |\n"
        "|---|---:|---:|---:|---:|---:|\n"
        "| target only | 3 | 1.00x | - | 31.25 | - |\n"
        "| speculative (gamma 2) | 1.5 | 2.50x | - | - | -4.0% |\n\n"
        "With cfg 0.5.\n"
    )
    assert table == (
        "decoder,target_calls_per_image,speedup,fid,token_agreement,hidden,fid_change\n"
        "target only,3.0,1.0,31.25,,,\n"
        "speculative (gamma 2),1.5,2.5,,nan,7.0,-0.04\n"
    )


def test_a_report_of_two_tables_names_its_checkpoint(tmp_path):
    first = ResultTable("nats", {"value": Column("")}, {"model": {"value": 2.5}})
    second = ResultTable("score", {"run": Column("a run", "{:.5g}", "not finite")}, {"fid": {"run": NAN}}, "of 4")
    report = Report("music", "Music", [first, second], {"value": NAN}, checkpoint="last.ckpt", remark="A remark.")
    text, markdown = (path.read_text() for path in report.write(tmp_path))
    assert json.loads(text) == {"value": None}
    assert markdown == (
        "# Music\n\nCheckpoint: `last.ckpt`\n\n| nats | |\n|---|---|\n| model | 2.5 |\n\n"
        "of 4.\n\n| score | a run |\n|---|---|\n| fid | not finite |\n\nA remark.\n"
    )


def test_a_table_does_not_begin_in_the_line_of_a_bar(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    with Progress(console=Console(file=out, force_terminal=True, width=80), auto_refresh=False) as bar:
        bar.add_task("Validation")
        ResultTable("nats", {"value": Column("")}, {"model": {"value": 2.5}}, "Likelihood").show()
    seen = [line.rpartition("\x1b[2K")[2] for line in out.getvalue().splitlines()]  # the last of what a line shows
    assert [line for line in seen if "┏" in line] == ["┏━━━━━━┳━━━━┓"]


@pytest.mark.parametrize("width", [20, 200])
def test_the_terminal_shows_labels_and_brackets_as_they_are(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    label = "a label that must not be cut, whatever the width [/b]"
    ResultTable("run", {"x": Column("[x]")}, {label: {"x": "text [/y]"}}, "A title").show()
    out = capsys.readouterr().out
    assert out.startswith("A title\n")
    assert all(part in out for part in (label, "[x]", "text", "[/y]"))


def test_long_headings_are_broken_so_that_a_table_fits_into_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    titles = ("overlapping area", "KL divergence", "overlapping area of training windows", "KL divergence of training")
    columns = {title: Column(title) for title in titles}
    ResultTable("feature", columns, {"pitch_class_transitions": dict.fromkeys(titles, 0.006689)}).show()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("0.006689" in line for line in lines) == 1
    assert {word for title in titles for word in title.split()} <= set(" ".join(lines).split())


def test_no_word_is_cut_where_many_columns_do_not_fit(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    titles = (
        "target tokens computed",
        "accepted per call",
        "ms per image",
        "by arithmetic",
        "pixel difference",
        "speed",
    )
    columns = {title: Column(title, right=True) for title in titles}
    ResultTable("decoder", columns, {"speculative (gamma 3, Rejection)": dict.fromkeys(titles, 4.988e-05)}).show()
    out = capsys.readouterr().out
    assert "…" not in out
    assert out.count("4.988e-05") == len(titles)
