"""The page that compares training and test images, as Snakemake makes it."""

from conftest import write_classes
from projects import RECIPE, new_project


def test_the_page_needs_no_training_and_no_submission_needs_it(tmp_path):
    write_classes(tmp_path / "train", {"a": 8, "b": 8})
    write_classes(tmp_path / "test", {"": 6}, seed=9)
    project = new_project(tmp_path, RECIPE, data={"source": "imagefolder", "train": "train", "test": "test"})
    page = "results/tiny/report/halves.html"
    assert project.planned(page) == {"manifest", "test_manifest", "pixels", "test_pixels", "halves_page"}
    assert "halves_page" not in project.planned("submission")
    done = project.run(page)
    assert done.returncode == 0, done.stdout
    assert "Training and test images compared" in (tmp_path / page).read_text(encoding="utf-8")
