"""The hostile texts harm: what shows them as they are would be found."""

from tests.hostile import CODES, MARKUP, obeyed, run_in_page


def test_what_a_browser_runs_is_found() -> None:
    assert all(run_in_page(f"<p title=''>{text}</p>") for text in MARKUP)
    assert run_in_page('<a href="javascript:alert(1)">a</a>')
    assert run_in_page("<p>&lt;script&gt;alert(1)</p><img src='a.png' alt='<script>'>") == []


def test_what_a_terminal_obeys_is_found() -> None:
    assert all(obeyed(text) for text in CODES if text != "a\nError: all is lost")
    assert obeyed("✓ explain CNN\t0 s\n") == set()
