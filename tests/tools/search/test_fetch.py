"""Fetching from real servers on loopback: what comes back, and the attempts to get elsewhere or to get too much."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from tools.search.extract import page_of
from tools.search.fetch import Fetched, Fetcher
from tools.search.guard import is_public
from tools.search.hit import SearchFailed

PAGE = """<html><head><title>Rivers &amp; lakes</title><script>evil()</script></head><body><nav>menu</nav>
<article><h1>Rivers</h1><p>The Elbe is 1,094 km long.</p><p>It ends in the North Sea.</p></article></body></html>"""


def fetched(fetcher: Fetcher, url: str) -> Fetched:
    async def run() -> Fetched:
        try:
            return await fetcher.fetch(url)
        finally:
            await fetcher.close()

    return asyncio.run(run())


def failure(fetcher: Fetcher, url: str) -> SearchFailed:
    with pytest.raises(SearchFailed) as caught:
        fetched(fetcher, url)
    return caught.value


def test_a_page_comes_back_as_its_main_text(site: Any, answers: Any, fetcher_for: Any) -> None:
    here = site(index=answers(PAGE), packed=answers(gzip.compress(PAGE.encode()), content_encoding="gzip"))
    for path in ("", "packed"):
        with fetcher_for(here) as (fetcher, _):
            page = page_of(fetched(fetcher, f"http://site.example:{here.port}/{path}"))
        assert page.title == "Rivers & lakes"
        assert "The Elbe is 1,094 km long." in page.text and "North Sea" in page.text
        assert "evil" not in page.text and "menu" not in page.text
    assert "cookie" not in here.headers[0] and "authorization" not in here.headers[0]


@pytest.mark.parametrize("path", ["straße?name=Köln", "%E2%82%AC/100%", "a'b(c)"])
def test_addresses_with_letters_beyond_ascii_are_asked_for_as_the_web_writes_them(
    path: str, site: Any, answers: Any, fetcher_for: Any
) -> None:
    here = site(default=answers("<p>here</p>"))
    with fetcher_for(here, {"xn--mnchen-3ya.example": ["127.0.0.1"]}) as (fetcher, _):
        assert fetched(fetcher, f"http://münchen.example:{here.port}/{path}").body == b"<p>here</p>"
    assert here.seen[0].isascii()


def test_redirects_are_followed_and_the_last_address_is_told(site: Any, answers: Any, fetcher_for: Any) -> None:
    here = site(old=answers("", 302, location="/new"), new=answers("<p>moved</p>"))
    with fetcher_for(here) as (fetcher, policy):
        found = fetched(fetcher, f"http://site.example:{here.port}/old")
    assert found.url == f"http://site.example:{here.port}/new" and found.body == b"<p>moved</p>"
    assert policy.asked == ["site.example"] * 2, "each hop is looked up and judged"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254:{port}/latest/meta-data/",
        "http://[::1]:{port}/",
        "http://[::ffff:10.0.0.1]:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f.1:{port}/",
        "http://user@site.example:{port}/",
        "http://private.example:{port}/",
        "http://half.example:{port}/",
        "http://site.example:22/",
        "//169.254.169.254:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
    ],
)
def test_a_redirect_does_not_lead_where_an_address_may_not(
    target: str, site: Any, answers: Any, fetcher_for: Any
) -> None:
    elsewhere = site(default=answers("secret"))
    here = site(go=answers("", 302, location=target.format(port=elsewhere.port)))
    names = {"private.example": ["10.0.0.1"], "half.example": ["127.0.0.1", "192.168.0.1"]}
    with fetcher_for(here, names) as (fetcher, policy):
        policy.ports |= {elsewhere.port}
        assert failure(fetcher, f"http://site.example:{here.port}/go").failure == "refused"
    assert here.seen == ["/go"] and elsewhere.seen == []


def test_users_reach_no_server_of_their_own_machine(site: Any, answers: Any) -> None:
    here = site(index=answers(PAGE))
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        fetcher = Fetcher()
        fetcher.policy.ports = frozenset({here.port})  # the port alone opens nothing
        assert failure(fetcher, f"http://{host}:{here.port}/").failure == "refused"
    assert here.seen == []


class Public:
    """The verdict that users have, with names that lead where the test says."""

    names: Mapping[str, Sequence[str]] = {
        "internal.example": ["127.0.0.1"],
        "mixed.example": ["93.184.216.34", "127.0.0.1"],
        "mapped.example": ["::ffff:127.0.0.1"],
        "metadata.example": ["169.254.169.254"],
        "localhost": ["127.0.0.1", "::1"],
        "ⓛocalhost": ["127.0.0.1"],
    }

    def __init__(self, port: int) -> None:
        self.ports = frozenset({80, 443, port})

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return self.names.get(host, ["127.0.0.1"])  # whatever else is looked up leads home

    def allows(self, address: str) -> bool:
        return is_public(address)


ATTEMPTS = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.2:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://[::]:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://internal.example:{port}/",
    "http://mixed.example:{port}/",
    "http://mapped.example:{port}/",
    "http://metadata.example:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/",
    "http://10.0.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://good.example:pw@127.0.0.1:{port}/",
    "http://good.example@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@good.example/",
    "http://good.example#@127.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://ⓛocalhost:{port}/",
    "http://127。0。0。1:{port}/",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/",
    "data:text/html,secret",
    "jar:http://127.0.0.1:{port}/!/",
    "//127.0.0.1:{port}/",
    "http:127.0.0.1:{port}",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_attempt_reaches_a_server_of_this_machine(attempt: str, site: Any, answers: Any) -> None:
    here = site(default=answers("secret"))
    fetcher = Fetcher(Public(here.port))
    assert failure(fetcher, attempt.format(port=here.port)).failure == "refused"
    assert here.seen == []


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_judged(
    site: Any, answers: Any, fetcher_for: Any
) -> None:
    here = site(index=answers(PAGE))
    with fetcher_for(here) as (fetcher, policy):
        replies = iter((["127.0.0.1"], ["10.0.0.1"], ["10.0.0.1"]))

        async def rebinding(host: str, port: int) -> list[str]:
            policy.asked.append(host)
            return next(replies)

        policy.resolve = rebinding
        assert fetched(fetcher, f"http://site.example:{here.port}/").body.startswith(b"<html>")
    assert policy.asked == ["site.example"], "looked up once, and connected to what was judged"


def endless(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/html")
    handler.end_headers()
    try:
        for _ in range(2000):  # 128 MB, if anybody read on
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass  # the other side has hung up, as it should


def silent(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/html")
    handler.send_header("content-length", "10")
    handler.end_headers()
    handler.wfile.flush()
    time.sleep(3)


def cut(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/html")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b"<p>half")


def rubbish(handler: Any) -> None:
    handler.wfile.write(b"\x00\x01this is not HTTP\r\n\r\n")


BOMB = gzip.compress(b"a" * 50_000_000)


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (endless, "refused"),
        (silent, "unavailable"),
        (cut, "bad_reply"),
        (rubbish, "bad_reply"),
        (("gzip", BOMB), "refused"),
        (("gzip", b"not gzip at all"), "bad_reply"),
        (("gzip", BOMB[:400]), "bad_reply"),
        (("br", b"anything"), "bad_reply"),
        ((429,), "rate_limited"),
        ((500,), "unavailable"),
        ((404,), "refused"),
        (("gzip", gzip.compress(b"half a page, ") + gzip.compress(b"and the other half")), "bad_reply"),
        (("gzip", gzip.compress(b"a page") + bytes(3_000_000)), "bad_reply"),
        (("image/png",), "bad_reply"),
    ],
)
def test_what_is_not_a_page_is_said_to_be_so(
    page: Any, kind: str, site: Any, answers: Callable[..., Any], fetcher_for: Any
) -> None:
    if isinstance(page, tuple):
        what = page[0]
        if isinstance(what, int):
            page = answers("no", what)
        elif "/" in what:
            page = answers("no", content_type=what)
        else:
            page = answers(page[1], content_encoding=what)
    here = site(index=page)
    with fetcher_for(here, seconds=1.0 if page is silent else 60.0) as (fetcher, _):
        found = failure(fetcher, f"http://site.example:{here.port}/?key=secret")
    assert found.failure == kind
    assert "secret" not in str(found) and len(str(found)) < 300


def test_a_circle_of_redirects_ends(site: Any, answers: Any, fetcher_for: Any) -> None:
    here = site(index=answers("", 302, location="/"))
    with fetcher_for(here, max_redirects=3) as (fetcher, _):
        assert "more than 3 redirects" in str(failure(fetcher, f"http://site.example:{here.port}/"))
    assert len(here.seen) == 4


def test_text_that_would_steer_a_terminal_or_hide_is_left_out(site: Any, answers: Any, fetcher_for: Any) -> None:
    here = site(index=answers("a\x1b[2Jb\u202ec\u200bd\x00e", content_type="text/plain; charset=utf-8"))
    with fetcher_for(here) as (fetcher, _):
        assert page_of(fetched(fetcher, f"http://site.example:{here.port}/")).text == "a[2Jbcde"
