import json

from benchmarks.gpu.results import Results, publish


def test_the_last_row_of_a_name_counts_and_an_error_is_tried_again(tmp_path):
    results = Results(tmp_path)
    results.add("check", {"name": "sine", "error": "wrong"})
    assert not results.has("check", "sine")
    results.add("check", {"name": "sine", "value": 1})
    assert results.has("check", "sine")
    assert not results.has("check", "cosine")
    assert results.all() == {"check": [{"name": "sine", "value": 1}]}


def test_a_row_that_was_cut_off_is_none(tmp_path):
    (tmp_path / "check.jsonl").write_text('{"name": "sine", "value": 1}\n{"name": "cos')
    assert list(Results(tmp_path).rows("check")) == ["sine"]


def test_of_a_long_log_the_end_comes_back(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "run").mkdir(parents=True)
    (work / "log.txt").write_text("begin" + 100 * "." + "end")
    (work / "run" / "log.csv").write_text("step\n")
    publish(work, Results(work / "results"), out, most=10)
    assert (out / "log.txt").read_text() == ".......end"
    assert (out / "isic-log.csv").read_text() == "step\n"
    assert json.loads((out / "results.json").read_text()) == {}
