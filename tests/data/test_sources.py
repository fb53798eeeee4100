import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_classes, write_image
from PIL import Image
from torchvision import datasets

from kfold_ens.config import HALVES, load_config
from kfold_ens.data.listings import COLUMNS
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError
from kfold_ens.files import sha256_of, write_table


def listed(source: str, seed: int = 0, **values: object) -> pd.DataFrame:
    """List a source, and check that ids are unique and files exist."""
    Path("export").mkdir(exist_ok=True)
    data = load_config({"data": {"source": source} | values}).data
    halves = {half: list_images(data, half, seed, Path("export")) for half in HALVES}
    for half, images in halves.items():
        assert images.columns.tolist() == COLUMNS
        assert images.index.tolist() == list(range(len(images)))
        assert set(images["split"]) == {half}
    images = pd.concat(halves.values(), ignore_index=True)
    assert images["image_id"].is_unique
    assert all(Path(path).is_file() or Path(path).is_symlink() for path in images["path"])
    return images


def folders(train: object = "train", test: str = "test", **values: object) -> pd.DataFrame:
    return listed("imagefolder", train=train, test=test, **values)


def part(images: pd.DataFrame, split: str = "train") -> pd.DataFrame:
    return images[images["split"] == split]


def labels_of(images: pd.DataFrame, split: str = "train") -> dict[str, int]:
    return dict(Counter(part(images, split)["label"]))


def lines(refusal: pytest.ExceptionInfo) -> list[str]:
    """The lines that a refusal lists."""
    return [line.strip() for line in str(refusal.value).splitlines()[1:]]


# --- folders ---------------------------------------------------------------------------------------------


@pytest.fixture
def data(in_folder: Path) -> Path:
    write_classes(in_folder / "train", {"cat": 3, "dog": 2})
    write_classes(in_folder / "test", {"": 2}, seed=5000)
    return in_folder


def test_an_image_folder_is_listed(data):
    images = folders()
    assert part(images)["image_id"].tolist() == [
        *(f"train/cat/{index:04d}.png" for index in range(3)),
        *(f"train/dog/{index:04d}.png" for index in range(2)),
    ]
    assert part(images)["name"].tolist()[:2] == ["0000.png", "0001.png"]
    assert part(images, "test").to_numpy().tolist() == [
        [f"test/{name}", name, f"test/{name}", "test", ""] for name in ("0000.png", "0001.png")
    ]


def test_training_folders_are_merged_and_a_class_may_be_missing_in_one(data):
    write_classes(data / "val", {"cat": 1, "eel": 2}, seed=900)
    images = folders(["train", "val"])
    assert labels_of(images) == {"cat": 4, "dog": 2, "eel": 2}
    assert {"train/train/cat/0000.png", "train/val/cat/0000.png"} <= set(images["image_id"])


def test_training_folders_of_the_same_name_stay_distinct(data):
    shutil.copytree("train", "more/train")
    images = folders(["train", "more/train"])
    assert labels_of(images) == {"cat": 6, "dog": 4}
    assert "train/more/train/cat/0000.png" in set(images["image_id"])


def test_the_order_of_training_folders_does_not_matter(data):
    write_classes(data / "val", {"cat": 3, "eel": 2}, seed=900)
    expected = folders(["train", "val"], limit_per_class=2)
    pd.testing.assert_frame_equal(folders(["val", "train"], limit_per_class=2), expected)


@pytest.mark.parametrize("again", ["train", "./train", "more/../train", "linked"])
def test_a_training_folder_listed_twice_is_refused(data, again):
    (data / "more").mkdir()
    (data / "linked").symlink_to("train")
    with pytest.raises(DataError, match=r"data\.train lists a folder twice"):
        folders(["train", again])


def test_a_class_may_be_empty_in_one_of_the_training_folders(data):
    write_classes(data / "val", {"cat": 1}, seed=900)
    (data / "val" / "dog").mkdir()
    assert labels_of(folders(["train", "val"])) == {"cat": 4, "dog": 2}


def test_labels_are_folder_names(in_folder):
    labels = [*map(str, range(120)), "007", "NA", "a, b", 'say "so"', "two\nlines", " spaced ", "ü ☃ 猫"]
    write_classes(in_folder / "train", dict.fromkeys(labels, 1))
    write_image(in_folder / "test" / "x.png")
    assert labels_of(folders()) == dict.fromkeys(labels, 1)


def test_other_files_are_ignored_and_counted(data, caplog):
    for name in ("cat/Thumbs.db", "cat/notes.txt", "cat/.hidden.png", "readme.txt", "stray.png", ".DS_Store"):
        (data / "train" / name).write_text("no image")
    for name in (".git/x.png", "cat/.cache/y.png"):
        write_image(data / "train" / name)
    (data / "test" / "labels.csv").write_text("no image")
    with caplog.at_level(logging.INFO):
        images = folders()
    assert labels_of(images) == {"cat": 3, "dog": 2}
    assert "train/cat: 6 files: 3 images; ignored: 1 hidden (such as .hidden.png)" in caplog.text
    assert "1 made by the system (such as Thumbs.db)" in caplog.text
    assert "1 text/plain (such as notes.txt)" in caplog.text
    assert "test: 3 files: 2 images; ignored: 1 text/csv (such as labels.csv)" in caplog.text
    assert "images directly in train are skipped; move them into class folders:\n  stray.png" in caplog.text


def test_folders_below_a_class_or_the_test_folder_are_read(data):
    write_image(data / "train" / "cat" / "more" / "still" / "x.png")
    write_image(data / "test" / "a" / "b" / "0000.png")
    images = folders()
    assert labels_of(images)["cat"] == 4
    assert part(images, "test")["name"].tolist() == ["0000.png", "0001.png", "a/b/0000.png"]


def test_links_out_of_the_data_folder_are_followed(data, tmp_path_factory):
    elsewhere = write_classes(tmp_path_factory.mktemp("elsewhere"), {"eel": 2, "fox": 1})
    (data / "train" / "eel").symlink_to(elsewhere / "eel")
    (data / "train" / "cat" / "fox").symlink_to(elsewhere / "fox")
    (data / "train" / "dog" / "x.png").symlink_to(elsewhere / "fox" / "0000.png")
    os.rename("test", "elsewhere")
    (data / "test").symlink_to("elsewhere")
    images = folders()
    assert labels_of(images) == {"cat": 4, "dog": 3, "eel": 2}
    assert labels_of(images, "test") == {"": 2}


def test_a_loop_of_links_ends(data):
    (data / "train" / "cat" / "self").symlink_to(".")
    (data / "train" / "cat" / "up").symlink_to("..")
    (data / "test" / "down").mkdir()
    (data / "test" / "down" / "up").symlink_to("..")
    images = folders()
    assert part(images, "test")["name"].tolist() == ["0000.png", "0001.png"]
    assert sum(images["image_id"].str.startswith("train/cat/0")) == 3


@pytest.mark.parametrize("order", [sorted, lambda entries: sorted(entries, reverse=True)], ids=["up", "down"])
def test_the_order_in_which_a_disk_lists_files_does_not_matter(data, monkeypatch, order):
    write_classes(data / "test", {"a": 2, "b": 2})
    (data / "test" / "c").symlink_to("a")
    walk = os.walk

    def ordered(root, **options):
        for folder, subfolders, files in walk(root, **options):
            subfolders[:] = order(subfolders)
            yield folder, subfolders, order(files)

    monkeypatch.setattr(os, "walk", ordered)
    names = part(folders(limit_per_class=2), "test")["name"].tolist()
    assert names == ["0000.png", "0001.png", "a/0000.png", "a/0001.png", "b/0000.png", "b/0001.png"]


def test_awkward_names_and_endings_are_kept(data):
    names = ["ü ☃.png", "a b.PNG", "two\nlines.png", "a,b.Jpg", 'q".jpeg', "x.y.tiff"]
    for seed, name in enumerate(names):
        shutil.copy(write_image(data / "source.png", 0, 77 + seed), data / "test" / name)
    assert set(part(folders(), "test")["name"]) == {"0000.png", "0001.png", *names}


@pytest.mark.parametrize("name", [b"test/\xff.png", b"test/\xff/x.png", b"train/\xff/x.png"])
def test_a_file_name_that_is_not_unicode_is_refused(data, name):
    try:
        write_image(Path(os.fsdecode(name)))
    except OSError:
        pytest.skip("this file system allows only Unicode names")
    with pytest.raises(DataError, match="is not UTF-8; rename it"):
        folders()


@pytest.mark.parametrize("folder", ["test/closed", "train/cat/closed"])
def test_an_unreadable_folder_is_refused(data, monkeypatch, folder):
    write_image(data / folder / "x.png")
    scandir = os.scandir

    def scan(path):  # as for a user without permission, since root may read everything
        if str(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(DataError, match=f"the folder {folder} cannot be read: Permission denied"):
        folders()


def test_all_empty_class_folders_are_listed(data):
    for name in ("x", "eel", "bat"):
        (data / "train" / name).mkdir()
    (data / "train" / "x" / "notes.txt").touch()
    with pytest.raises(DataError, match="class folders have no images") as refusal:
        folders()
    assert lines(refusal) == ["bat", "eel", "x"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("gone", "test", "there is no folder gone"),
        (["train", "gone"], "test", "there is no folder gone"),
        ("train", "gone", "there is no folder gone"),
        ("train", "file", "there is no folder file"),
        ("test", "train", "test holds no class folders"),
        ("train", "empty", "there are no test images"),
        ("train", "train/cat", "data.test overlaps a training folder"),
        ("train", "train", "data.test overlaps a training folder"),
        ("train", "./train/../train/cat", "data.test overlaps a training folder"),
        ("train", "linked", "data.test overlaps a training folder"),
        ("outer", "outer/test", "data.test overlaps a training folder"),
    ],
)
def test_wrong_folders_are_refused(data, train, test, message):
    (data / "empty").mkdir()
    (data / "file").touch()
    (data / "linked").symlink_to("train/dog")
    for name in ("outer/cat/x.png", "outer/dog/y.png", "outer/test/z.png"):
        write_image(data / name)
    with pytest.raises(DataError, match=message):
        folders(train, test)


def test_limit_per_class_draws_images_by_the_seed(data):
    write_classes(data / "train", {"cat": 30, "dog": 30, "eel": 2})
    drawn = {seed: folders(limit_per_class=4, seed=seed) for seed in (0, 1)}
    for images in drawn.values():
        assert labels_of(images) == {"cat": 4, "dog": 4, "eel": 2}
        assert labels_of(images, "test") == {"": 2}
    assert set(drawn[0]["image_id"]) != set(drawn[1]["image_id"])
    pd.testing.assert_frame_equal(drawn[0], folders(limit_per_class=4, seed=0))


def test_one_half_is_listed_without_the_other(data):
    both = folders()
    source = load_config({"data": {"source": "imagefolder", "train": "train", "test": "test"}}).data
    for half, other in (("train", "test"), ("test", "train")):
        os.rename(other, "away")
        pd.testing.assert_frame_equal(list_images(source, half, 0, None), part(both, half).reset_index(drop=True))
        os.rename("away", other)


# --- tables ----------------------------------------------------------------------------------------------


@pytest.fixture
def images(in_folder: Path) -> Path:
    """The folder images/, with the files that the tables list."""
    (in_folder / "images" / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.JPG", "c.jpeg", "007.png", "sub/d.png", "e f, ü.png", "g.png")):
        shutil.copy(write_image(in_folder / "source.png", 0, seed), in_folder / "images" / name)
    return in_folder


TRAIN = [("a", "cat"), ("b", "dog"), ("c.jpeg", "cat"), ("007", "007"), ("sub/d", "NA")]


def tables(train=TRAIN, test=(("e f, ü",), ("g.png",)), columns=("id", "label"), **values):
    write_table("train.csv", pd.DataFrame(train, columns=list(columns)))
    write_table("test.csv", pd.DataFrame(test, columns=[columns[0]]))
    return listed("csv", train="train.csv", test="test.csv", images="images", **values)


def test_tables_keep_their_ids_and_labels(images):
    table = tables()
    assert part(table).sort_values("name")[["name", "path", "label"]].to_numpy().tolist() == [
        ["007", "images/007.png", "007"],
        ["a", "images/a.png", "cat"],
        ["b", "images/b.JPG", "dog"],
        ["c.jpeg", "images/c.jpeg", "cat"],
        ["sub/d", "images/sub/d.png", "NA"],
    ]
    assert part(table, "test")[["image_id", "name", "path", "label"]].to_numpy().tolist() == [
        ["test/e f, ü", "e f, ü", "images/e f, ü.png", ""],
        ["test/g.png", "g.png", "images/g.png", ""],
    ]


def test_columns_and_the_folder_of_test_images_are_configurable(images):
    os.rename("images/g.png", "other.png")
    table = tables(
        test=[("other",)], columns=("Bild", "Klasse"), id_column="Bild", label_column="Klasse", test_images="."
    )
    assert part(table, "test")["path"].tolist() == ["other.png"]
    assert labels_of(table) == {"cat": 2, "dog": 1, "007": 1, "NA": 1}


def test_the_order_of_rows_does_not_change_the_training_images(images):
    expected = tables(limit_per_class=1)
    assert labels_of(expected) == {"cat": 1, "dog": 1, "007": 1, "NA": 1}
    pd.testing.assert_frame_equal(tables(TRAIN[::-1], limit_per_class=1), expected)


def test_an_image_may_be_listed_in_both_tables(images):
    assert part(tables(test=[("a",)]), "test")["path"].tolist() == ["images/a.png"]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("wrong", "findings"),
    [
        (["gone"], ["gone"]),
        (["x/gone", "lost.png"], ["x/gone", "lost.png"]),
        ([""], ["''"]),
        (["sub"], ["sub"]),
        (["sub/"], ["sub/"]),
        (["x" * 300], ["x" * 300]),
        (["c.jpeg/x"], ["c.jpeg/x"]),
        (["7.0", "B.png"], ["7.0: did you mean 007.png? (another form of a number)", "B.png: did you mean b.JPG?"]),
    ],
    ids=lambda names: "+".join(names)[:20],
)
def test_all_images_missing_in_the_folder_are_listed(images, split, wrong, findings):
    rows = {"train": {"train": [*TRAIN, *((name, "cat") for name in wrong)]}, "test": {"test": [("g",), *zip(wrong)]}}
    with pytest.raises(
        DataError, match=f"^data.{split}: {split}.csv lists images that are not in images; add or rename them:"
    ) as refusal:
        tables(**rows[split])
    assert [line[: len(finding)] for line, finding in zip(lines(refusal), findings, strict=True)] == findings


def test_all_faults_of_ids_are_listed_at_once(images):
    write_image(images / "images" / "a.jpg")
    rows = ["a", "b", "b", "007", "007.png", "gone", "../source.png"]
    with pytest.raises(DataError) as refusal:
        tables([(name, "cat") for name in rows])
    assert str(refusal.value).replace("data.train: train.csv lists ", "") == (
        "these images more than once; keep one row of each:\n  b\n"
        "images outside images; move them into it, or change data.images (data.test_images):\n  ../source.png\n"
        "images that are not in images; add or rename them:\n  gone\n"
        "ids that match several files; rename or remove all but one:\n  a: images/a.jpg or images/a.png\n"
        "one image under two ids; keep one row of each:\n  007 and 007.png: images/007.png"
    )


@pytest.mark.parametrize(
    ("tables_are", "message", "listing"),
    [
        ({"train": [*TRAIN, ("b", "cat"), ("a", "cat")]}, "train.csv lists these images more than once", ["a", "b"]),
        ({"test": [("g",), ("g",)]}, "test.csv lists these images more than once", ["g"]),
        ({"train": [*TRAIN, ("g", ""), ("x", "")]}, "train.csv: these images have no label", ["g", "x"]),
        (
            {"id_column": "name"},
            r"data.train: train.csv lacks columns. .* it has \['id', 'label'\]",
            ["'name' (data.id_"],
        ),
        ({"label_column": "class"}, "train.csv lacks columns", ["config.yaml needs 'class' (data.label_column)"]),
        ({"columns": ("id", "Label ")}, "lacks columns", ["has 'Label ', config.yaml needs 'label'"]),
        ({"train": []}, r"data.train: train.csv has the columns \['id', 'label'\], but no rows", []),
        ({"test": []}, r"data.test: test.csv has the columns \['id'\], but no rows", []),
    ],
)
def test_wrong_tables_are_refused(images, tables_are, message, listing):
    with pytest.raises(DataError, match=message) as refusal:
        tables(**tables_are)
    assert len(lines(refusal)) == len(listing)
    assert all(expected in line for expected, line in zip(listing, lines(refusal), strict=True))


@pytest.mark.parametrize("content", [None, b"", b"id,label\na,b\nc,d,e\n", b"\xff\xfe\x00", b'id,label\n"a,b\n'])
def test_an_unreadable_table_is_refused_by_key_and_name(images, content):
    write_table("test.csv", pd.DataFrame({"id": ["g"]}))
    if content is not None:
        Path("train.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"^data\.train: train\.csv (is|has|cannot|does not exist)"):
        listed("csv", train="train.csv", test="test.csv", images="images")


def test_tables_with_semicolons_give_the_same_images(images, caplog):
    expected = tables()
    for name in ("train.csv", "test.csv"):
        Path(name).write_text(Path(name).read_text().replace(",", ";").replace("f;", "f,"), encoding="utf-16")
    with caplog.at_level(logging.INFO):
        again = listed("csv", train="train.csv", test="test.csv", images="images")
    pd.testing.assert_frame_equal(again, expected)
    assert "data.train: train.csv is read as separated by semicolons" in caplog.text
    assert "data.test: test.csv is read as UTF-16" in caplog.text


def test_an_absolute_path_gives_the_same_image_id_on_every_machine(images):
    table = part(tables(test=[(str(images / "images" / "sub" / "d"),), ("sub/../g.png",)]), "test")
    assert table["image_id"].tolist() == ["test/sub/d", "test/g.png"]
    assert table["name"].tolist() == [str(images / "images" / "sub" / "d"), "sub/../g.png"]
    assert table["path"].tolist() == ["images/sub/d.png", "images/g.png"]


# --- datasets of libraries -------------------------------------------------------------------------------


def test_digits_are_1797_images_with_a_labelled_fifth_as_test_set(in_folder):
    images = listed("digits")
    assert len(images) == 1797
    assert len(part(images, "test")) == 360
    for split, share in (("train", 143.7), ("test", 36)):
        counts = labels_of(images, split)
        assert set(counts) == set("0123456789")
        assert all(abs(count - share) < 5 for count in counts.values())
    first = Image.open(part(images)["path"].iloc[0])
    assert (first.size, first.mode) == ((8, 8), "L")
    before = [sha256_of(path) for path in images["path"]]
    pd.testing.assert_frame_equal(listed("digits", seed=3), images)  # the seed of the run does not matter
    assert [sha256_of(path) for path in images["path"]] == before


def test_only_the_listed_half_is_written(in_folder):
    for half in HALVES:
        (in_folder / half).mkdir()
        listed_half = list_images(load_config({"data": {"source": "digits"}}).data, half, 0, Path(half))
        assert sorted(listed_half["path"]) == sorted(f"{half}/{name}" for name in os.listdir(half))
    assert not set(os.listdir("train")) & set(os.listdir("test"))


def test_digits_can_be_limited(in_folder):
    images = listed("digits", limit_per_class=3)
    assert labels_of(images) == labels_of(images, "test") == dict.fromkeys("0123456789", 3)
    assert len(os.listdir("export")) == 60
    assert set(images["image_id"]) <= set(listed("digits")["image_id"])


class Fake(datasets.VisionDataset):
    """Like torchvision's datasets: pairs of an image and its class index, for "ant" or "10"."""

    classes = ["ant", "10"]
    shades = {"": 40}

    def __init__(self, root, shown=""):
        super().__init__(root)
        self.shade = self.shades[shown]

    def __len__(self):
        return self.shade

    def __getitem__(self, index):
        pixels = np.full((4, 5, 3), self.shade, dtype=np.uint8)
        pixels[0, 0] = index
        return Image.fromarray(pixels), index % 2


class ByTrain(Fake):
    shades = {True: 6, False: 4}

    def __init__(self, root, train=True, download=False):
        super().__init__(root, train)
        self.download = download


class BySplit(Fake):
    """Raises ValueError for an unknown split, like torchvision."""

    def __init__(self, root, split="train"):
        if split not in self.shades:
            raise ValueError(f"Unknown value '{split}' for argument split")
        super().__init__(root, split)


class WithFiles(BySplit):
    """Keeps its images as files, which ``loader`` opens."""

    shades = {"train": 4, "test": 2}

    def __init__(self, root, split="train", loader=Image.open):
        super().__init__(root, split)
        self.loader = loader

    def __getitem__(self, index):
        return self.loader(str(write_image(Path(self.root, f"{self.shade}-{index}.jpg"), 10, index))), index % 2


class Unlabelled(Fake):
    classes = None

    def __getitem__(self, index):
        return super().__getitem__(index)[0], np.int64(index % 3)


class Missing(Fake):
    def __init__(self, root, train=True, download=True):
        raise RuntimeError("Dataset not found. You can use download=True to download it")


class OfBoxes(Fake):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], {"boxes": []}


class NeedsMore(Fake):
    def __init__(self, root, annotations):
        super().__init__(root)


class TrainOnly(BySplit):
    shades = {"train": 3, "extra": 2}


@pytest.fixture
def torchvision(in_folder, monkeypatch):
    """List a fake torchvision dataset; ``splits`` maps names to sizes."""

    def dataset(kind: type, splits: dict[str, int] | None = None, **values) -> pd.DataFrame:
        fake = type(kind.__name__, (kind,), {"shades": splits or kind.shades})
        monkeypatch.setattr(datasets, kind.__name__, fake, raising=False)
        return listed("torchvision", name=kind.__name__, **values)

    return dataset


@pytest.mark.parametrize(
    ("kind", "splits", "train", "test"),
    [
        (ByTrain, None, [6], [4]),
        (BySplit, {"train": 6, "test": 4}, [6], [4]),
        (BySplit, {"train": 6, "val": 4}, [6], [4]),
        (BySplit, {"train": 6, "valid": 4}, [6], [4]),
        (BySplit, {"train": 6, "test": 4, "val": 2}, [6, 2], [4]),
        (BySplit, {"train": 6, "test": 4, "valid": 2}, [6, 2], [4]),
        (BySplit, {"trainval": 8, "train": 6, "val": 2, "test": 4}, [8], [4]),
        (BySplit, {"trainval": 8, "test": 4}, [8], [4]),
        (BySplit, {"train": 6, "test": 4, "extra": 10, "unlabeled": 12}, [6], [4]),
    ],
)
def test_validation_images_join_the_training_images(torchvision, kind, splits, train, test):
    images = torchvision(kind, splits)
    for split, shades in (("train", train), ("test", test)):
        found = [np.asarray(Image.open(path))[1, 1, 0] for path in part(images, split)["path"]]
        assert found == [shade for shade in shades for _ in range(shade)]
        assert labels_of(images, split) == dict.fromkeys(("ant", "10"), sum(shades) // 2)


def test_a_dataset_without_splits_has_a_fifth_held_out_of_each_class(torchvision):
    images = torchvision(Fake)
    assert labels_of(images) == {"ant": 16, "10": 16}
    assert labels_of(images, "test") == {"ant": 4, "10": 4}
    pd.testing.assert_frame_equal(torchvision(Fake, seed=1), images)


@pytest.mark.parametrize("counts", [{"a": 1, "b": 9}, {"a": 2, "b": 2, "c": 2}])
def test_too_few_images_for_a_test_set_are_refused(in_folder, counts):
    write_classes(in_folder / "few", counts)
    with pytest.raises(DataError, match="cannot hold out 20% of the images as a test set: .* class"):
        listed("torchvision", name="ImageFolder", root="few")


def test_images_that_are_files_are_used_in_place(torchvision):
    images = torchvision(WithFiles, root="kept")
    assert part(images)["path"].tolist() == [f"kept/4-{index}.jpg" for index in range(4)]
    assert os.listdir("export") == []


def test_classes_without_names_are_numbered(torchvision):
    assert labels_of(torchvision(Unlabelled)).keys() == {"0", "1", "2"}


def test_a_limited_dataset_writes_only_the_drawn_images(torchvision):
    images = torchvision(ByTrain, {True: 20, False: 10}, limit_per_class=2)
    assert labels_of(images) == labels_of(images, "test") == {"ant": 2, "10": 2}
    assert len(os.listdir("export")) == 8


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Missing, "torchvision cannot read Missing in data: Dataset not found(.|\n)*copy them there"),
        (OfBoxes, "OfBoxes has no class labels"),
        (NeedsMore, "NeedsMore cannot be loaded: .*annotations"),
        (TrainOnly, r"TrainOnly needs a training split and a test split; found \['train'\]"),
    ],
)
def test_datasets_that_cannot_be_used_are_refused(torchvision, kind, message):
    with pytest.raises(DataError, match=message):
        torchvision(kind)


@pytest.mark.parametrize("name", ["FashionMnist", "vision", "os", "__file__"])
def test_an_unknown_dataset_is_refused(in_folder, name):
    with pytest.raises(DataError, match=f"torchvision has no dataset '{name}'"):
        listed("torchvision", name=name)


@pytest.mark.parametrize("name", ["FakeData", "DatasetFolder", "CocoDetection"])
def test_a_dataset_that_needs_more_than_a_folder_is_refused(in_folder, name):
    write_classes(in_folder / "data", {"a": 1})
    with pytest.raises(DataError, match=f"^data.name: {name} cannot be loaded"):
        listed("torchvision", name=name)


def test_missing_files_of_a_real_dataset_are_refused(in_folder):
    with pytest.raises(DataError, match="cannot read FashionMNIST in data(.|\n)*copy them there"):
        listed("torchvision", name="FashionMNIST", download=False)


def test_the_dataset_folder_as_root_is_refused_with_the_right_root(in_folder):
    """pytorch/vision#777: root is the parent folder."""
    with pytest.raises(DataError, match="cannot read FashionMNIST in all/FashionMNIST(.|\n)*write root: all\n"):
        listed("torchvision", name="FashionMNIST", root="all/FashionMNIST", download=False)


def test_a_real_dataset_is_read(in_folder, fashion_mnist):
    images = listed("torchvision", name="FashionMNIST", root=str(fashion_mnist), download=False, limit_per_class=2)
    labels = labels_of(images)
    assert labels == labels_of(images, "test")
    assert {"T-shirt/top", "Ankle boot"} <= set(labels)
    assert set(labels.values()) == {2}
