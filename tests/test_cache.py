import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from fer_lightning.data.cache import cached_faces
from fer_lightning.data.ckplus import read_ckplus
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.folder import read_folder
from fer_lightning.errors import InputError
from fer_lightning.images import BadImageError
from fer_lightning.preprocess import Preprocess

# Another process: decodes 20 images, image i of brightness i, and logs every read in a file.
BUILD = """
import os, signal, sys, time
import numpy as np
from fer_lightning.data.cache import cached_faces
from fer_lightning.data.faces import FaceIndex
from fer_lightning.preprocess import Preprocess

cache_dir, log, trouble = sys.argv[1:]

def read(i):
    with open(log, "a") as file:
        file.write(f"{i}\\n")
    if trouble == "slow":
        time.sleep(0.05)
    if trouble == "killed" and i == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.full((48, 48), i, np.uint8)

if trouble == "full disk":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
names = [f"{i}.png" for i in range(20)]
targets = np.arange(20) % 2
index = FaceIndex(dataset="tiny", class_names=("a", "b"), names=names, targets=targets, read=read, source_key="key")
print(cached_faces(index, Preprocess(), cache_dir).images)
"""


posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL, modes and limits of a file's size")


def start_build(cache_dir, log, trouble):
    command = [sys.executable, "-c", BUILD, str(cache_dir), str(log), trouble]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def twenty(read=lambda i: np.full((48, 48), i, np.uint8)):
    """The index that BUILD decodes."""
    return FaceIndex(
        dataset="tiny",
        class_names=("a", "b"),
        names=[f"{i}.png" for i in range(20)],
        targets=np.arange(20) % 2,
        read=read,
        source_key="key",
    )


def left_in(cache_dir):
    return [path.name for path in cache_dir.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def reads():
    """The positions that `index` was asked to decode, in order."""
    return []


@pytest.fixture
def broken():
    """Positions that do not decode."""
    return set()


@pytest.fixture
def index(face, reads, broken):
    def read(i):
        reads.append(i)
        if i in broken:
            raise BadImageError(f"b/{i}.png", "(0 bytes) does not decode as an image")
        return face(i % 2, i)

    return FaceIndex(
        dataset="tiny",
        class_names=("a", "b"),
        names=[f"b/{i}.png" for i in range(6)],
        targets=np.arange(6) % 2,
        read=read,
        source_key="key",
    )


class TestDecoding:
    def test_images_lie_in_the_order_of_the_index(self, index, cache_dir, face):
        images = cached_faces(index, Preprocess(), cache_dir).open()
        np.testing.assert_array_equal(images, [face(i % 2, i) for i in range(6)])

    @pytest.mark.parametrize(
        "preprocess",
        [Preprocess(size=20), Preprocess(channels=3), Preprocess(gaussian_kernel=3, laplacian=True)],
        ids=["small", "colour", "filtered"],
    )
    def test_images_are_prepared(self, index, cache_dir, face, preprocess):
        images = cached_faces(index, preprocess, cache_dir).open()
        np.testing.assert_array_equal(images, [preprocess.prepare(face(i % 2, i)) for i in range(6)])

    def test_images_cannot_be_changed(self, index, cache_dir):
        images = cached_faces(index, Preprocess(), cache_dir).open()
        assert images.dtype == np.uint8
        assert not images.flags.writeable

    def test_the_folder_is_named_after_the_dataset(self, index, cache_dir):
        assert cached_faces(index, Preprocess(), cache_dir).images.parent.name.startswith("tiny-")


class TestReuse:
    @posix_only
    def test_other_users_may_read_it_as_the_folder_above_it(self, index, cache_dir):
        place = cached_faces(index, Preprocess(), cache_dir).images.parent
        assert place.stat().st_mode == cache_dir.stat().st_mode

    def test_the_second_run_decodes_nothing(self, index, cache_dir, reads):
        first = cached_faces(index, Preprocess(), cache_dir)
        assert cached_faces(index, Preprocess(), cache_dir) == first
        assert reads == list(range(6))

    @pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
    def test_a_file_changed_within_its_size_is_decoded_again(
        self, tmp_path, cache_dir, zipped, face, write_image, as_zip
    ):
        root = tmp_path / "letters"

        def decoded():
            index = read_folder(zipped(root) if as_zip else root)
            return cached_faces(index, Preprocess(), cache_dir).open()

        for label, name in enumerate("ab"):
            write_image(root / name / "0.bmp", face(label))
        np.testing.assert_array_equal(decoded(), [face(0), face(1)])
        write_image(root / "b" / "0.bmp", face(2))
        os.utime(root / "b" / "0.bmp", (1e9, 1e9))  # a clock may tick too slowly for the two writes
        np.testing.assert_array_equal(decoded(), [face(0), face(2)])

    def test_an_added_file_is_decoded(self, ckplus_tree, cache_dir):
        shutil.copy(
            ckplus_tree / "CK+48/happy/S010_005_00000012.png", ckplus_tree / "CK+48/happy/S999_001_00000001.png"
        )
        assert len(cached_faces(read_ckplus(ckplus_tree), Preprocess(), cache_dir).open()) == 85

    @pytest.mark.parametrize("change", [{"size": 40}, {"channels": 3}])
    def test_another_preprocessing_is_another_cache(self, index, cache_dir, reads, change):
        plain = cached_faces(index, Preprocess(), cache_dir)
        assert cached_faces(index, Preprocess(**change), cache_dir) != plain
        assert len(reads) == 12

    @pytest.mark.parametrize("change", [{"scaling": "symmetric"}, {"gaussian_kernel": 3, "laplacian": True}])
    def test_another_scaling_or_filter_is_the_same_cache(self, index, cache_dir, reads, change):
        plain = cached_faces(index, Preprocess(), cache_dir)
        assert cached_faces(index, Preprocess(**change), cache_dir) == plain
        assert len(reads) == 6


class TestBadImages:
    @pytest.fixture(autouse=True)
    def two_broken(self, broken):
        broken |= {1, 4}

    def test_fail_names_the_first_and_the_remedy(self, index, cache_dir):
        message = r"tiny: b/1\.png \(0 bytes\) does not decode as an image; replace it, or .*data\.on_bad_image=skip"
        with pytest.raises(InputError, match=message):
            cached_faces(index, Preprocess(), cache_dir)

    def test_fail_leaves_nothing_behind(self, index, cache_dir):
        with pytest.raises(InputError):
            cached_faces(index, Preprocess(), cache_dir)
        assert left_in(cache_dir) == []

    def test_skip_lists_them_with_the_reason(self, index, cache_dir):
        cache = cached_faces(index, Preprocess(), cache_dir, on_bad_image="skip")
        assert cache.skipped == dict.fromkeys([1, 4], "(0 bytes) does not decode as an image")

    def test_skip_keeps_the_positions_of_the_others(self, index, cache_dir, face):
        images = cached_faces(index, Preprocess(), cache_dir, on_bad_image="skip").open()
        blank = np.zeros((48, 48), np.uint8)
        np.testing.assert_array_equal(images, [blank if i in (1, 4) else face(i % 2, i) for i in range(6)])

    def test_a_reused_cache_lists_them_too(self, index, cache_dir):
        built = cached_faces(index, Preprocess(), cache_dir, on_bad_image="skip")
        assert cached_faces(index, Preprocess(), cache_dir, on_bad_image="skip") == built

    @pytest.mark.parametrize("on_bad_image", ["skip", "fail"])
    def test_one_that_was_repaired_is_decoded(self, index, cache_dir, broken, face, on_bad_image):
        cached_faces(index, Preprocess(), cache_dir, on_bad_image="skip")
        broken.clear()
        cache = cached_faces(index, Preprocess(), cache_dir, on_bad_image=on_bad_image)
        assert cache.skipped == {}
        np.testing.assert_array_equal(cache.open(), [face(i % 2, i) for i in range(6)])

    def test_fail_refuses_a_cache_that_was_built_with_skip(self, index, cache_dir):
        cached_faces(index, Preprocess(), cache_dir, on_bad_image="skip")
        message = r"tiny: b/1\.png \(0 bytes\) does not decode as an image; replace it, or .*data\.on_bad_image=skip"
        with pytest.raises(InputError, match=message):
            cached_faces(index, Preprocess(), cache_dir)

    def test_an_unknown_choice_is_refused(self, index, cache_dir):
        with pytest.raises(InputError, match=r"data\.on_bad_image must be fail or skip, got 'ignore'"):
            cached_faces(index, Preprocess(), cache_dir, on_bad_image="ignore")


class TestInterruptions:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_a_build_that_stops_half_way_leaves_nothing(self, cache_dir, error):
        def read(i):
            if i == 10:
                raise error
            return np.zeros((48, 48), np.uint8)

        with pytest.raises(error):
            cached_faces(twenty(read), Preprocess(), cache_dir)
        assert left_in(cache_dir) == []

    @posix_only
    def test_a_killed_build_is_done_again_from_the_start(self, cache_dir, tmp_path):
        builder = start_build(cache_dir, tmp_path / "log", "killed")
        builder.communicate(timeout=60)
        assert builder.returncode == -signal.SIGKILL
        images = cached_faces(twenty(), Preprocess(), cache_dir).open()
        assert images[:, 0, 0].tolist() == list(range(20))

    @posix_only
    def test_the_next_build_clears_away_what_a_killed_one_left(self, cache_dir, tmp_path):
        start_build(cache_dir, tmp_path / "log", "killed").communicate(timeout=60)
        cache = cached_faces(twenty(), Preprocess(), cache_dir)
        assert left_in(cache_dir) == [cache.images.parent.name]

    def test_two_processes_share_one_build(self, cache_dir, tmp_path):
        builders = [start_build(cache_dir, tmp_path / "log", "slow") for _ in range(2)]
        outputs = [builder.communicate(timeout=60)[0].splitlines() for builder in builders]
        assert [builder.returncode for builder in builders] == [0, 0]
        assert outputs[0][-1] == outputs[1][-1]
        assert (tmp_path / "log").read_text().split() == [str(i) for i in range(20)]
        assert len(left_in(cache_dir)) == 1

    @posix_only
    def test_a_full_disk_is_told_and_leaves_nothing(self, cache_dir, tmp_path):
        builder = start_build(cache_dir, tmp_path / "log", "full disk")
        assert "InputError: cannot write the decoded images of tiny to" in builder.communicate(timeout=60)[1]
        assert left_in(cache_dir) == []


@pytest.mark.parametrize("below", ["", "deeper"], ids=["itself", "its parent"])
def test_a_cache_dir_that_is_a_file_is_refused(index, tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=rf"cannot write .*{tmp_path}/file/.*choose another place with data\.cache_dir=DIR"
    ):
        cached_faces(index, Preprocess(), tmp_path / "file" / below)
