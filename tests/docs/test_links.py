"""Every link on a page leads somewhere, in the repository as well as on the site that is made of docs/."""

import re

import pytest

from .pages import DOCS, EXAMPLES, PAGES, ROOT, SITE, prose

EVERYWHERE = [*PAGES, *EXAMPLES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
LINK = re.compile(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"')
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
REFERENCE = re.compile(r"^::: (\S+)$", re.MULTILINE)


def named(pages):
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]


def links(page):
    return [one or other for one, other in LINK.findall(prose(page))]


def anchors(page):
    """By the rule of GitHub, which is that of the site too: lower case, spaces to hyphens, punctuation dropped."""
    text = prose(page)
    found = set(re.findall(r'<a id="([^"]+)"', text)) | set(REFERENCE.findall(text))
    for heading in HEADING.findall(text):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        assert slug not in found, f"two headings of {page.name} have one anchor: {slug}"
        found.add(slug)
    return found


@pytest.mark.parametrize("page", named(EVERYWHERE))
def test_links_lead_somewhere(page):
    for link in links(page):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), link
        assert not anchor or anchor in anchors(found), link


@pytest.mark.parametrize("page", named(SITE))
def test_links_of_the_site_stay_on_it(page):
    for link in links(page):
        assert link.startswith("https://") or (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS), (
            link
        )


@pytest.mark.parametrize("page", named(SITE))
def test_links_are_to_pages_that_the_navigation_names(page):
    assert f'"{page.relative_to(DOCS).as_posix()}"' in (ROOT / "zensical.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", named(EVERYWHERE))
def test_links_go_to_what_is_safe_to_fetch(page):
    """No plain http, and no badge or script of somebody else's."""
    for link in links(page):
        assert not link.startswith(("http:", "//", "data:", "file:")), link
