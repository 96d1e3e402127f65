"""Small trees in the layouts of the published benchmarks, and models that have nothing but classes."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from torch import nn

from relevit.data.benchmarks import BENCHMARKS
from relevit.data.sets import ImageSet


class Classifier(nn.Module):
    """A model's classes: their number, and its own names."""

    def __init__(self, num_classes: int, names: list[str] | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pretrained_cfg = {"num_classes": num_classes, **({"label_names": names} if names else {})}


def save(path: Path, grey: int = 0, size: tuple[int, int] = (5, 7)) -> None:
    """A grey picture (losslessly, if it is a PNG)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(path)


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


# ObjectNet in small. Two of the four folders overlap with ImageNet; lines and class indices are different numbers.
OBJECTNET_LINES = ["tench, Tinca tinca", "chair, one", "bench", "chair, two", "mug"]
OBJECTNET = {
    "folder_to_objectnet_label.json": {"a_chair": "Chair", "mug": "Mug", "tray": "Tray", "absent": "Chair"},
    "objectnet_to_imagenet_1k.json": {"Chair": "chair, two; chair, one", "Mug": "mug"},
    "pytorch_to_imagenet_2012_id.json": {"0": 2, "7": 3, "11": 1, "999": 4, "500": 0},
}


def objectnet(root: Path) -> Path:
    """images/ beside mappings/, pictures of a red border around grey."""
    for name, content in OBJECTNET.items():
        path = root / "mappings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (root / "mappings" / "imagenet_to_label_2012_v2").write_text("\n".join(OBJECTNET_LINES) + "\n")
    for grey, folder in enumerate(["a_chair", "mug", "tray"], start=3):
        for number in range(2):
            image = Image.new("RGB", (11, 7), (255, 0, 0))
            image.paste((grey, grey, grey), (1, 1, 10, 6))
            path = root / "images" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return root


MODEL = Classifier(1000)


def opened(name: str, root: Path, protocol: str = "standard") -> ImageSet:
    sets = BENCHMARKS[name].sets(root, protocol)
    assert list(sets) == [name]
    return sets[name]()


def rows(data: ImageSet) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """By key: the group's name, the right classes, and the grey value of the picture's middle."""
    answers = data.right_classes(MODEL)
    assert len(answers) == len(data)
    found = {}
    for index in range(len(data)):
        image = data[index].image
        middle = image.getpixel((image.width // 2, image.height // 2))
        found[data.names[index]] = (data.groups[index], answers[index], middle[0])
    assert len(found) == len(data)
    return found
