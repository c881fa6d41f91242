"""What tests read again and again: a page, the rows of its table, why something was refused."""

from bs4 import BeautifulSoup

from auth.policy import Refused


def soup(answer, status=200):
    """The page of an answer."""
    assert answer.status_code == status, answer.text
    return BeautifulSoup(answer.text, "html5lib")


def rows(page):
    """The words of each cell, a row at a time."""
    return [
        [td.get_text(" ", strip=True) for td in tr.find_all("td")] for tr in page.select("tbody tr")
    ]


def refused(act, *given):
    """The reason, or "done"."""
    try:
        act(*given)
    except Refused as no:
        return no.reason
    return "done"


def entered(house, address):
    """A browser in which this person is signed in."""
    door = house.door()
    door.sign_in(address)
    return door
