"""What goes wrong with a remote, against a real S3 server: nothing is lost, messages say what to do."""

import hashlib
import threading
import time
from pathlib import Path

import pytest

pytest_plugins = ["tests.sharing_fixtures"]
ROOT = Path(__file__).parent.parent
NUM_FILES = 20


def write_data(repository, num_files=NUM_FILES, size=50_000):
    """Track a folder of files in DVC, commit it, and return its bytes by name."""
    folder = repository.path / "data"
    folder.mkdir()
    for number in range(num_files):
        block = hashlib.sha512(str(number).encode()).digest()
        (folder / f"{number}.bin").write_bytes(block * (size // len(block)))
    repository.dvc("add", "data")
    repository.commit("Data")
    repository.git("push", "--quiet", "--set-upstream", "origin", "main")
    return contents(repository)


def contents(repository):
    return {path.name: path.read_bytes() for path in (repository.path / "data").glob("*")}


def verify(repository, *options, fails=False):
    """Run apps.verify on a repository that has no code of its own."""
    env = {"PYTHONPATH": str(ROOT)}
    return repository.run("python", "-m", "apps.verify", *options, fails=fails, env=env)


@pytest.fixture(scope="module")
def pushed_once(plain_repository_in, s3_server, tmp_path_factory):
    """A repository whose data is in the S3 store, its data, and what the store holds of it."""
    repository = plain_repository_in(tmp_path_factory.mktemp("pushed"))
    repository.add_s3(s3_server, "pushed")
    data = write_data(repository)
    repository.dvc("push")
    read = s3_server.client.get_object
    return (
        repository,
        data,
        {key: read(Bucket=s3_server.bucket, Key=key)["Body"].read() for key in s3_server.keys("pushed/")},
    )


@pytest.fixture
def pushed(pushed_once, s3_server):
    """A repository whose data is in the S3 store, whatever a test before did to it there, and its data.

    A test changes neither the repository nor its data.
    """
    repository, data, stored = pushed_once
    for key, body in stored.items():
        s3_server.client.put_object(Bucket=s3_server.bucket, Key=key, Body=body)
    return repository, data


def an_object(server):
    """Return the key of one of the data's files in the store."""
    return next(key for key in server.keys("pushed/") if not key.endswith(".dir"))


def test_wrong_credentials_are_refused_and_right_ones_may_come_from_the_environment(
    plain_repository, s3_server, clone_of
):
    author = plain_repository
    author.add_s3(s3_server, "credentials")
    private = author.path / ".dvc/config.local"
    private.write_text(private.read_text().replace(s3_server.secret_key, "wrong"))
    data = write_data(author)
    assert "Forbidden" in author.dvc("push", fails=True)
    assert s3_server.keys("credentials") == []
    message = verify(author, fails=True)
    assert message.startswith("error: the remote cannot be asked: Forbidden")
    assert "credentials (.dvc/config.local or the environment)" in message
    assert "Traceback" not in message

    private.unlink()
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    author.dvc("push", env=keys)
    clone = clone_of(author, "clone")
    assert "credentials" in clone.dvc("pull", fails=True)
    clone.dvc("pull", env=keys)
    assert contents(clone) == data


def test_a_push_that_the_server_does_not_survive_is_finished_by_the_next_one(plain_repository, own_s3_server, clone_of):
    server, author = own_s3_server, plain_repository
    author.add_s3(server, "killed")
    data = write_data(author, num_files=4, size=10_000_000)
    pushing = threading.Thread(target=author.dvc, args=("push", "--jobs", "1"), kwargs={"fails": True})
    pushing.start()
    while not (arrived := server.keys("killed")) and pushing.is_alive():
        time.sleep(0.01)
    server.kill()
    pushing.join()
    assert 0 < len(arrived) < 4

    server.start()
    assert "data: the remote lacks" in verify(author, fails=True)
    author.dvc("push")
    verify(author, "--contents")
    clone = clone_of(author, "clone")
    clone.set_keys(server)
    clone.dvc("pull")
    assert contents(clone) == data


def test_a_damaged_object_never_reaches_a_workspace_and_is_sent_again(pushed, s3_server, clone_of):
    author, data = pushed
    key = an_object(s3_server)
    s3_server.client.put_object(Bucket=s3_server.bucket, Key=key, Body=b"damaged")
    clone = clone_of(author, "clone")
    clone.set_keys(s3_server)
    assert "failed to pull" in clone.dvc("pull", fails=True)
    assert b"damaged" not in contents(clone).values()
    problem = verify(clone, "--contents", fails=True)
    assert problem.startswith("data: the remote has a damaged copy of 1 of its 21 object(s)")
    # The clone has all but the damaged object: it cannot help.
    assert verify(clone, "--contents", "--repair", fails=True) == problem
    verify(author, "--contents", "--repair")
    clone.dvc("pull")
    assert contents(clone) == data


def test_a_lost_object_is_sent_again_where_the_damaged_list_of_files_does_not_name_it(plain_repository, tmp_path):
    author, store = plain_repository, tmp_path / "store"
    author.dvc("remote", "add", "--default", "store", str(store))
    write_data(author, num_files=2)
    author.dvc("push")
    [listing] = store.rglob("*.dir")
    listing.chmod(0o644)
    listing.write_text("[]")
    lost = next(path for path in store.rglob("*") if path.is_file() and path != listing)
    lost.unlink()
    assert "data: the remote has a damaged copy of 1 of its 1 object(s)" in verify(author, fails=True)
    verify(author, "--repair")
    assert lost.exists()
    verify(author, "--contents")


def test_a_lost_object_is_named_and_sent_again(pushed, s3_server, clone_of):
    author, data = pushed
    key = an_object(s3_server)
    name = key.removeprefix("pushed/files/md5/").replace("/", "")
    s3_server.client.delete_object(Bucket=s3_server.bucket, Key=key)
    clone = clone_of(author, "clone")
    clone.set_keys(s3_server)
    assert name in clone.dvc("pull", fails=True)
    assert f"data: the remote lacks 1 of its 21 object(s), such as {name}; run" in verify(clone, fails=True)
    # Why --repair exists: DVC takes the files of a folder whose list is in the remote on trust.
    author.dvc("push")
    assert key not in s3_server.keys("pushed/")
    verify(author, "--repair")
    clone.dvc("pull")
    assert contents(clone) == data


def test_a_store_that_lost_everything_is_filled_again(pushed, s3_server, clone_of):
    author, data = pushed
    for key in s3_server.keys("pushed/"):
        s3_server.client.delete_object(Bucket=s3_server.bucket, Key=key)
    verify(author, "--repair")
    clone = clone_of(author, "clone")
    clone.set_keys(s3_server)
    clone.dvc("pull")
    assert contents(clone) == data


def test_a_server_that_is_gone_is_said_so(plain_repository, s3_server):
    plain_repository.add_s3(s3_server, "gone")
    write_data(plain_repository)
    plain_repository.dvc("remote", "modify", "store", "endpointurl", "http://127.0.0.1:9")
    message = verify(plain_repository, fails=True)
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9' in message
    assert "--lock-only" in message
