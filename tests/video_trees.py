"""Miniature trees of the official video data sets, with real files of every kind; each returns its config."""

import json

import numpy as np

from tests import clips

CHANNELS = 12  # of features; the official ones have 2,048


def dump(path, content):
    """Write JSON, or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def edit(path, change):
    """Change the JSON of a file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace(path, old, new):
    """Change the text of a file in place."""
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def ssv2(root):
    """Three templates of which the second has no video in the tests; ids are numbers."""
    labels = {"Closing something": "0", "Holding something next to something": "1", "Opening something": "2"}
    templates = ["Closing [something]", "Holding [something] next to [something]", "Opening [something]"]
    rows = {"train": {"101": 0, "102": 1, "103": 2, "104": 0}, "validation": {"205": 2, "206": 0}}
    dump(root / "something-something-v2-labels.json", labels)
    for part, videos in rows.items():
        content = [{"id": key, "template": templates[c], "label": "x", "placeholders": []} for key, c in videos.items()]
        dump(root / f"something-something-v2-{part}.json", content)
        for key in videos:
            clips.write(root / "20bn-something-something-v2" / f"{key}.webm", 10, rate=12)
    return {"name": "ssv2", "root": str(root)}


def ucf101(root):
    """Two classes, one with the two spellings; Windows line ends as in the official lists."""
    names = {"ApplyEyeMakeup": "ApplyEyeMakeup", "HandstandPushups": "HandStandPushups"}
    lists = {"trainlist01": (1, 2), "testlist01": (3,)}
    dump(root / "ucfTrainTestlist/classInd.txt", "".join(f"{i} {c}\r\n" for i, c in enumerate(names, 1)))
    for name, groups in lists.items():
        lines = []
        for label, (folder, stem) in enumerate(names.items(), 1):
            for group in groups:
                video = f"{folder}/v_{stem}_g{group:02d}_c01.avi"
                clips.write(root / "UCF-101" / video, 12, first=32 * label + 4 * group)
                lines.append(video + (f" {label}" if name.startswith("train") else ""))
        dump(root / f"ucfTrainTestlist/{name}.txt", "".join(f"{line}\r\n" for line in lines))
    return {"name": "ucf101", "root": str(root)}


def own(root):
    """Two classes of three videos each, files and folders of frames."""
    for label, name in enumerate(("jump rope", "run")):
        for number in range(2):
            clips.write(root / name / f"{number}.mp4", 10, first=32 * label + 4 * number)
        clips.write_pictures(root / name / "phone" / "3", 9, first=32 * label + 12)
    return {"name": "own", "root": str(root)}


def hmdb51(root):
    """Two classes; one video of each is in neither part, one has a name with marks in it."""
    for name in ("brush_hair", "catch"):
        videos = {f"{name}_a_#1.avi": 1, f"{name}_b;2.avi": 2, f"{name}_c.avi": 0}
        for video, code in videos.items():
            if code:
                clips.write(root / "hmdb51_org" / name / video, 9)
        lines = "".join(f"{video} {code} \n" for video, code in videos.items())
        dump(root / f"testTrainMulti_7030_splits/{name}_test_split1.txt", lines)
    return {"name": "hmdb51", "root": str(root)}


ACTIONS = ("bend/bow (at the waist)", "crawl", "dance")


def ava_actions(root):
    """Write both lists of actions, in their two spellings; crawl is not scored."""
    kinds = "".join(
        f'label {{\n  name: "{c}"\n  label_id: {i}\n  label_type: PERSON_MOVEMENT\n}}\n'
        for i, c in enumerate(ACTIONS, 1)
    )
    dump(root / "annotations/ava_action_list_v2.2.pbtxt", kinds)
    scored = "".join(f'item {{\n  name: "{c}"\n  id: {i}\n}}\n' for i, c in enumerate(ACTIONS, 1) if c != "crawl")
    dump(root / "annotations/ava_action_list_v2.2_for_activitynet_2019.pbtxt", scored)


def ava(root):
    """One movie cut at second 900 and one as frames, four key frames of which one is excluded."""
    ava_actions(root)
    train = (
        "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,1,1\n-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,3,1\n"
        "-5KQ66BBWC4,0902,0.5,0.2,0.9,1.0,2,2\n-5KQ66BBWC4,0903,0.1,0.1,0.4,0.9,3,1\n"
        "-5KQ66BBWC4,0904,0.3,0.1,0.3,0.9,3,1\n-5KQ66BBWC4,0904,0.3,0.1,0.5,0.9,1,1\n"
    )
    dump(root / "annotations/ava_train_v2.2.csv", train)
    dump(root / "annotations/ava_train_excluded_timestamps_v2.2.csv", "-5KQ66BBWC4,0903\n")
    dump(
        root / "annotations/ava_val_v2.2.csv",
        "1j20qq1JyX4,0902,0.0,0.0,1.0,1.0,2,7\n1j20qq1JyX4,0902,0.0,0.0,1.0,1.0,3,7\n",
    )
    dump(root / "annotations/ava_val_excluded_timestamps_v2.2.csv", "")
    clips.write(root / "videos/-5KQ66BBWC4.mkv", 60, rate=10)
    clips.write_pictures(root / "videos/1j20qq1JyX4", 80, pattern="1j20qq1JyX4_{:06d}.jpg")
    return {"name": "ava", "root": str(root), "start": 900.0}


def ava_kinetics(root):
    """Two clips of one original video, one of another, an unlabelled key frame."""
    ava_actions(root)
    lines = "abc_d,82.5,0.1,0.1,0.4,0.9,1\nabc_d,11.0,0.1,0.1,0.4,0.9,3\n_e-f,5.0,,,,,\n"
    dump(root / "kinetics_train_v1.0.csv", lines)
    dump(root / "kinetics_val_v1.0.csv", "ghi,3.5,0.1,0.1,0.4,0.9,1\nghi,3.5,0.1,0.1,0.4,0.9,2\n")
    for clip in ("abc_d_000080_000090", "abc_d_000010_000020", "ghi_000000_000010"):
        clips.write(root / "videos/train" / f"{clip}.mp4", 40, rate=8)
    return {"name": "ava_kinetics", "root": str(root)}


def thumos14(root):
    """Two classes in three videos."""
    actions = {"CliffDiving": 1, "BaseballPitch": 0}
    rows = {
        "video_validation_0000051": ("Validation", [("CliffDiving", 1.0, 4.0), ("BaseballPitch", 6.5, 9.0)]),
        "video_validation_0000052": ("Validation", [("BaseballPitch", 0.0, 2.5)]),
        "video_test_0000004": ("Test", [("CliffDiving", 3.0, 5.0)]),
    }
    database = {}
    for video, (subset, segments) in rows.items():
        marks = [{"label": c, "segment": [a, b], "label_id": actions[c]} for c, a, b in segments]
        database[video] = {"subset": subset, "duration": 12.0, "fps": 30.0, "annotations": marks}
        features(root / f"i3d_features/{video}.npy", (85, CHANNELS))
    dump(root / "annotations/thumos14.json", {"version": "Thumos14-30fps", "database": database})
    return {"name": "thumos14", "root": str(root), "channels": CHANNELS}


def features(path, shape):
    """Save features drawn at random."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(len(path.name)).normal(size=shape).astype(np.float32))


def segmentation(root, name, classes, videos, length=30):
    """Save a data set for segmentation whose last video tests; its features are two frames longer than its labels."""
    home = root / name
    dump(home / "mapping.txt", "".join(f"{i} {c}\n" for i, c in enumerate(classes)))
    for number, video in enumerate(videos):
        labels = np.sort(np.random.default_rng(number).integers(0, len(classes), length))
        dump(home / f"groundTruth/{video}.txt", "".join(f"{classes[i]}\n" for i in labels))
        features(home / f"features/{video}.npy", (CHANNELS, length + 2 * (number == len(videos) - 1)))
    dump(home / "splits/train.split1.bundle", "".join(f"{video}.txt\n" for video in videos[:-1]))
    dump(home / "splits/test.split1.bundle", f"{videos[-1]}.txt\n")
    return {"name": name, "root": str(root), "channels": CHANNELS}


def salads(root):
    """50Salads, with frames of cutting and mixing."""
    return segmentation(root, "50salads", ("cut_tomato", "mix", "action_start"), ("rgb-01-1", "rgb-01-2", "rgb-02-1"))


def breakfast(root):
    """Breakfast, whose silence is a class that counts."""
    return segmentation(root, "breakfast", ("SIL", "pour_milk"), ("P03_cam01_P03_cereals", "P03_cam02_P03_cereals"))


def gtea(root):
    """GTEA, whose background does not."""
    return segmentation(root, "gtea", ("take", "open", "background"), ("S1_Cheese_C1", "S2_Cheese_C1"))


def imagenet_vid(root):
    """A training video of four frames, half of them marked, and a validation video; one of two objects comes later."""
    for part, stem in (("train", "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"), ("val", "val/v_0")):
        images, annotations = [], []
        for i in range(4):
            about = {"height": clips.HEIGHT, "width": clips.WIDTH, "frame_id": i, "video_id": 1}
            images.append({"id": i + 1, "file_name": f"{stem}/{i:06d}.JPEG", "is_vid_train_frame": i % 2 == 0} | about)
            for instance in (0, 1) if i else (0,):
                box = [2 + i, 3, 20, 10] if instance else [10, 5, 38, 27]
                about = {"bbox": box, "category_id": instance + 1, "instance_id": instance}
                annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "video_id": 1} | about)
        clips.write_pictures(root / "Data/VID" / stem, 4, start=0, pattern="{:06d}.JPEG")
        content = {"categories": [{"id": 1, "name": "airplane"}, {"id": 2, "name": "antelope"}]}
        content |= {"videos": [{"id": 1, "name": stem}], "images": images, "annotations": annotations}
        dump(root / f"annotations/imagenet_vid_{part}.json", content)
    return {"name": "imagenet_vid", "root": str(root)}


def run_lengths(mask):
    """Write a mask bool[H, W] as runs of zeros and ones down the columns, with a loop."""
    counts, value = [0], False
    for pixel in mask.T.reshape(-1):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def square(i):
    """Return the mask of an object that moves right."""
    mask = np.zeros((clips.HEIGHT, clips.WIDTH), bool)
    mask[4:20, 3 * i : 3 * i + 10] = True
    return mask


def youtube_vis(root):
    """Four videos of three frames; an object that is hidden in the second frame, and one that is there in the last."""
    videos, annotations = [], []
    for number in range(4):
        name = f"00{number}a3f"
        files = [f"{name}/{5 * i:05d}.jpg" for i in range(3)]
        size = {"width": clips.WIDTH, "height": clips.HEIGHT, "length": 3}
        videos.append({"id": number + 1, "file_names": files} | size)
        clips.write_pictures(root / f"train/JPEGImages/{name}", 3, start=0, step=5, pattern="{:05d}.jpg")
        for category, shown in ((1, (True, False, True)), (2, (False, False, True))):
            codes = [run_lengths(square(i)) if there else None for i, there in enumerate(shown)]
            about = {"category_id": category, "iscrowd": 0, "id": len(annotations) + 1}
            annotations.append({"video_id": number + 1, "segmentations": codes} | about)
    categories = [{"id": 1, "name": "person", "supercategory": "object"}, {"id": 2, "name": "giant_panda"}]
    dump(root / "train.json", {"videos": videos, "annotations": annotations, "categories": categories})
    return {"name": "youtube_vis", "root": str(root), "held_out": 0.25}


TREES = {
    "50salads": salads,
    "ava": ava,
    "ava_kinetics": ava_kinetics,
    "breakfast": breakfast,
    "gtea": gtea,
    "hmdb51": hmdb51,
    "imagenet_vid": imagenet_vid,
    "own": own,
    "ssv2": ssv2,
    "thumos14": thumos14,
    "ucf101": ucf101,
    "youtube_vis": youtube_vis,
}
