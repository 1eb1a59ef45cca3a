"""What the benchmark reckons with: operations, times to a loss, answers of a service, and the page that it writes."""

import json
from pathlib import Path

import pytest

from benchmarks.documents import command_line, write_part
from benchmarks.figures import Report, nearest_rank
from benchmarks.flops import step_flop
from benchmarks.http_answer import Answer, generate_request
from benchmarks.options import PARTS
from benchmarks.plain import PlainNetwork
from benchmarks.timeline import Point, best_within, seconds_to
from models.config import CELLS, Cell, ModelConfig

POINTS = [
    Point(10, 1.0, True, {"cold 64": 2.1, "carried": 1.9}),
    Point(20, 2.0, True, {"cold 64": 1.9, "carried": 1.87}),
    Point(30, 3.0, False, {"cold 64": 1.88, "carried": 1.89}),
    Point(40, 4.0, True, {"cold 64": 1.87}),
]


@pytest.mark.parametrize("cell", CELLS)
def test_the_operations_of_a_step_are_two_for_each_weight_of_a_product_and_character_forward_and_twice_that_back(
    cell: Cell,
) -> None:
    model = ModelConfig(cell, hidden_size=24, num_layers=2, embedding_size=8)
    shapes = model.parameter_shapes(vocabulary_size=30)
    products = sum(
        a * b for name, (a, b) in ((n, s) for n, s in shapes.items() if len(s) == 2) if "embedding" not in name
    )
    assert step_flop(model, 30, batch_size=4, sequence_length=16) == 3 * 2 * products * 4 * 16


@pytest.mark.parametrize("cell", CELLS)
def test_the_plain_network_is_the_same_network(cell: Cell) -> None:
    model = ModelConfig(cell, hidden_size=24, num_layers=2, embedding_size=8)
    plain = PlainNetwork(model, vocabulary_size=30)
    ours = model.parameter_shapes(vocabulary_size=30)
    assert sorted(tuple(p.shape) for p in plain.parameters()) == sorted(ours.values())


def test_the_time_to_a_loss_is_that_of_the_first_checkpoint_at_or_below_it_in_the_named_protocol() -> None:
    assert seconds_to(POINTS, "cold 64", 1.88) == 3.0
    assert seconds_to(POINTS, "carried", 1.88) == 2.0
    assert seconds_to(POINTS, "cold 64", 1.5) is None
    assert seconds_to(POINTS, "cold 256", 9.0) is None


def test_within_a_time_the_newest_checkpoint_that_was_the_best_so_far_counts() -> None:
    assert best_within(POINTS, 3.5) == POINTS[1]
    assert best_within(POINTS, 4.0) == POINTS[3]
    assert best_within(POINTS, 0.9) is None


def test_the_nearest_rank_is_one_of_the_values_that_so_many_do_not_exceed() -> None:
    values = [float(value) for value in reversed(range(1, 201))]
    assert nearest_rank(values, 0.99) == 198
    assert nearest_rank(values, 0.5) == 100
    assert nearest_rank([7.0], 0.99) == 7


HEAD = b"HTTP/1.1 200 OK\r\nX-Seed: 7\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKED = HEAD + b"5\r\n\r\nthe\r\nC\r\n wall, 0\r\n\r\n\r\n0\r\n\r\n"
WHOLE = b'HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 7\r\n\r\n{"a":1}'


@pytest.mark.parametrize(("sent", "body"), [(CHUNKED, b"\r\nthe wall, 0\r\n\r\n"), (WHOLE, b'{"a":1}')])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_an_answer_has_the_same_body_however_its_bytes_are_cut(sent: bytes, body: bytes, size: int) -> None:
    answer, read = Answer(), b""
    for begin in range(0, len(sent), size):
        assert not answer.complete
        read += answer.feed(sent[begin : begin + size])
    assert (read, answer.complete) == (body, True)
    assert answer.status in (200, 429)
    assert ("x-seed" in answer.headers) != ("retry-after" in answer.headers)


def test_an_answer_that_broke_off_is_not_complete() -> None:
    answer = Answer()
    assert answer.feed(CHUNKED[:-5]) == b"\r\nthe wall, 0\r\n\r\n"
    assert not answer.complete


def test_a_request_tells_the_length_of_its_body() -> None:
    head, _, body = generate_request({"model": "tiny", "prompt": "Où?"}, "text/event-stream").partition(b"\r\n\r\n")
    assert json.loads(body) == {"model": "tiny", "prompt": "Où?"}
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert b"Accept: text/event-stream" in head.split(b"\r\n")


def test_a_part_is_written_between_its_marks_and_nothing_else_of_the_page_is_touched(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- speed -->\nold\n<!-- end of speed -->\nafter\n<!-- scale -->\n<!-- end of scale -->\n"
    )
    report = Report("Speed", ("network", "bars"), (("gru", "a|b"),), ("A note.",))
    for _ in range(2):
        write_part(page, "speed", [report], "a machine", "the command")
    text = page.read_text()
    assert text.startswith("before\n<!-- speed -->\nMeasured on ")
    assert text.endswith("<!-- end of speed -->\nafter\n<!-- scale -->\n<!-- end of scale -->\n")
    assert "by `the command`: a machine." in text
    assert "| network | bars |\n| --- | --- |\n| gru | a\\|b |\n\nA note.\n" in text
    assert text.count("### Speed") == 1
    assert "old" not in text
    with pytest.raises(ValueError, match="no place for upload"):
        write_part(page, "upload", [report], "a machine", "the command")


def test_the_page_has_a_place_for_every_part() -> None:
    page = Path("docs/benchmarks.md").read_text()
    for part in PARTS:
        assert page.count(f"<!-- {part} -->\n") == page.count(f"<!-- end of {part} -->\n") == 1


def test_the_command_on_the_page_names_no_folder_of_this_machine() -> None:
    arguments = ["--only", "quality", "--nanogpt", "/home/me/nanoGPT", "--corpus=/home/me/x.txt", "--write-docs"]
    expected = "python -m benchmarks --only quality --nanogpt NANOGPT --corpus=FILE"
    assert command_line(arguments, "quality") == expected
    settings = ["--short", "--only=speed", "--training", '{"seed": 1}']
    assert command_line(settings, "speed") == "python -m benchmarks --only speed --short --training '{\"seed\": 1}'"
