"""The report opened from a file in Chromium, on a wide and a narrow screen."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from projects import RECIPE, Project, new_project, write_colour
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from kfold_ens.report.contents import PAGES

pytestmark = pytest.mark.browser

CLASSES = ["<img src=x onerror=alert(1)>", "\"quoted\" & 'single'", "x" * 200, "plain"]
SCREENS = {"wide": (1280, 900), "narrow": (390, 844)}
FOLDS = 2
CHAPTERS = Counter(page.chapter for page in PAGES.values() if page.of not in ("ablation", "blend", "certificate"))
CHAPTERS[PAGES["fold"].chapter] += FOLDS - 1


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A run with hostile names of classes and files, and a test image of the last class."""
    folder = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    labels = {}
    for place, label in enumerate(CLASSES):
        for index in range(10):
            write_colour(folder / "train" / label / f"{index}.png", str(30 * place), random)
        for index in range(1 if label == "plain" else 4):
            name = f"<b>{place}{index}<b>&{'y' * 180}"
            write_colour(folder / "test" / f"{name}.png", str(30 * place), random)
            labels[name] = label
    shutil.copy(folder / "train/plain/0.png", folder / "train/plain/copy of 0.png")
    pd.DataFrame({"image_name": labels.keys(), "pred_label": labels.values()}).to_csv(
        folder / "labels.csv", index=False
    )
    data = {"source": "imagefolder", "train": "train", "test": "test", "test_labels": "labels.csv"}
    made = new_project(folder, RECIPE | {"epochs": 2}, data=data, num_folds=FOLDS)
    done = made.run("submission", "report")
    assert done.returncode == 0, done.stdout
    return made


@pytest.fixture(scope="module")
def browser():
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        message = "apt-get install chromium chromium-driver"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def opened(browser, project: Project, screen: str):
    width, height = SCREENS[screen]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen == "narrow"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # drop messages of earlier pages
    browser.get((project.folder / "results/report.html").as_uri())
    first = f"//nav//span[text()='{PAGES['overview'].chapter}']"
    WebDriverWait(browser, 20).until(lambda _: browser.find_elements(By.XPATH, first))
    return browser


def open_chapter(browser, chapter: str) -> list:
    browser.switch_to.default_content()
    browser.execute_script("app.setView({navbarMode: 'menu'})")
    click(browser, browser.find_element(By.XPATH, f"//nav//span[text()='{chapter}']"))
    return browser.find_elements(By.CSS_SELECTOR, "nav tbody tr")


def click(browser, element) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def open_page(browser, row) -> None:
    """Click on the eye of a page, and switch to its frame."""
    browser.switch_to.default_content()
    click(browser, row.find_element(By.CSS_SELECTOR, "a"))
    WebDriverWait(browser, 20).until(lambda _: browser.find_elements(By.TAG_NAME, "iframe"))
    browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
    WebDriverWait(browser, 20).until(lambda _: browser.find_elements(By.TAG_NAME, "h1"))
    charts = "return [...document.querySelectorAll('figure > div')].every(each => each.querySelector('svg'))"
    WebDriverWait(browser, 20).until(lambda _: browser.execute_script(charts))


def page_of(browser, name: str) -> None:
    page = PAGES[name]
    row = next(row for row in open_chapter(browser, page.chapter) if row.text.startswith(page.label))
    open_page(browser, row)


SHOWN = """
return [...document.querySelectorAll('svg, img, table, pre')].map(each => {
    const {width, height} = each.getBoundingClientRect();
    return [each.tagName + (each.alt || ''), Math.min(width, height), each.tagName == 'IMG' ? each.naturalWidth : 1];
});
"""
CUT_OFF = """
return [...document.querySelectorAll('h1, h2, p, li')].filter(each => {
    const {left, right} = each.getBoundingClientRect();
    return left < 0 || right > document.documentElement.clientWidth + 1;
}).map(each => each.textContent.slice(0, 80));
"""


@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_of_every_chapter_opens_and_fits(browser, project, screen):
    opened(browser, project, screen)
    assert sorted(browser.execute_script("return Object.keys(categories)")) == sorted(CHAPTERS)
    for chapter, pages in CHAPTERS.items():
        rows = open_chapter(browser, chapter)
        assert len(rows) == pages, chapter
        for place in range(pages):
            open_page(browser, open_chapter(browser, chapter)[place])
            title = browser.find_element(By.TAG_NAME, "h1").text
            shown = browser.execute_script(SHOWN)
            assert [each for each in shown if each[1] < 5 or each[2] < 1] == [], title
            assert browser.execute_script(CUT_OFF) == [], title
            alts = browser.execute_script(
                "return [...document.querySelectorAll('img')].every(each => each.alt) && "
                "[...document.querySelectorAll('figure[role=img]')].every(each => each.ariaLabel)"
            )
            assert alts, title
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = {
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    }
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}


def test_a_click_on_a_column_head_sorts(browser, project):
    opened(browser, project, "wide")
    page_of(browser, "classes")
    for head, number in {"images": float, "class": str}.items():
        cells = {}
        for _ in ("down", "up"):
            click(browser, browser.find_element(By.XPATH, f"//th[text()='{head}']"))
            time.sleep(0.3)  # the library waits for a possible double click
            column = [each.text for each in browser.find_elements(By.CSS_SELECTOR, "thead th")].index(head)
            rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr")
            shown = [number(row.find_elements(By.TAG_NAME, "td")[column].text) for row in rows]
            order = browser.find_element(By.XPATH, f"//th[text()='{head}']").get_attribute("aria-sort")
            cells[order] = shown
        assert cells["ascending"] == cells["descending"][::-1] or number is float
        if number is float:
            assert cells == {"descending": sorted(cells["descending"])[::-1], "ascending": sorted(cells["descending"])}


def test_hovering_over_a_cell_of_the_confusion_matrix_shows_its_numbers(browser, project):
    opened(browser, project, "wide")
    page_of(browser, "confusion")
    cell = browser.find_element(By.CSS_SELECTOR, "g.mark-rect path")
    webdriver.ActionChains(browser).move_to_element(cell).perform()
    tip = WebDriverWait(browser, 10).until(lambda _: browser.find_element(By.CSS_SELECTOR, ".vg-tooltip.visible"))
    assert all(name in tip.text for name in ("true", "predicted", "images", "share of true")), tip.text


def test_hostile_names_are_shown_as_text_in_the_browser(browser, project):
    opened(browser, project, "wide")
    for page in ("examples", "classes"):
        page_of(browser, page)
        text = browser.find_element(By.TAG_NAME, "body").text
        assert [label for label in CLASSES if label not in text] == []
    page_of(browser, "submission")
    assert f"<b>00<b>&{'y' * 180}" in browser.find_element(By.TAG_NAME, "body").text


def test_snakemakes_report_has_the_same_pages(project):
    done = project.run("--report", "own.html")
    assert done.returncode == 0, done.stdout

    def shown(path: Path) -> list[str]:
        return sorted(set(re.findall(r'"results/[^"]*\.html"', path.read_text(encoding="utf-8"))))

    assert shown(project.folder / "own.html") == shown(project.folder / "results/report.html") != []
    assert (project.folder / "own.html").stat().st_size < 15e6
