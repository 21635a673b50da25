"""Faults of secrets: in addresses, under names of other spellings, and in manifests."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from support.dense_models import environ

from tfscale.errors import is_plain, is_secret, without_secrets

F8 = pytest.mark.fault(
    "F8",
    injected="secrets under other names, in addresses with a slash in the password, in queries; weak ones that are words",
    expected="hidden by whole words; numbers, truth values and classes stay, and the run can be evaluated",
)
F9 = pytest.mark.fault(
    "F9",
    injected="secrets in what tfscale k8s is given, or in the environment that a job's key asks for",
    expected="77, and how to make a Secret; the run's own keys may name the pod's variables",
)
SECRET = [
    "DB_PASS",
    "PGPASSWORD",
    "MYSQL_PWD",
    "db.password",
    "userPassword",
    "apiKey",
    "API_KEY",
    "x-api-key",
    "AWS_SECRET_ACCESS_KEY",
    "private-key",
    "authToken",
    "auth",
    "credentials",
    "GOOGLE_CREDENTIAL",
    "HTTPAuth",
    "token2",
    "APIKey",
    "client_secret",
    *("apikey", "SECRETKEY", "DBPASS", "dbpwd", "SASTOKEN", "SSH_PASSPHRASE", "Authorization"),
    *("AZURE_STORAGE_CONNECTION_STRING", "connectionString", "AccountKey"),
]
OPEN = [
    "key_dim",
    "max_tokens",
    "author",
    "authors",
    "tokenizer",
    "bypass",
    "compass",
    "secretary",
    "keys",
    "key",
    "monkey",
    "tokens",
    "secrets",
    "pull_secrets",
    "num_passes",
    "accessibility",
    "api_version",
    *("account", "connection", "tokenize", "num_heads_key", "keyboard"),
]
ADDRESSES = {
    "postgresql://me:hunter/22@host/db": "postgresql://<redacted>@host/db",
    "postgresql://me:22/hunter@host/db": "postgresql://<redacted>@host/db",
    "mysql+pymysql://me:hun@ter@host:3306/db": "mysql+pymysql://<redacted>@host:3306/db",
    "postgresql://me:hun?ter#22@host/db": "postgresql://<redacted>@host/db",
    "https://host/mlflow?token=hunter22&page=2": "https://host/mlflow?token=<redacted>&page=2",
    "https://host/blob?sv=1&sig=hunter22%3D": "https://host/blob?sv=1&sig=<redacted>",
    "https://host/#access_token=hunter22": "https://host/#access_token=<redacted>",
    "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter": "mssql+pyodbc:///?odbc_connect=<redacted>",
    "see 'mysql://me:hunter@host/db' or s3://key:hunter@store/it": "see 'mysql://<redacted>@host/db' or s3://<redacted>@store/it",
    "https://host/it?apikey=hunter22&access%5Ftoken=hunter22": "https://host/it?apikey=<redacted>&access%5Ftoken=<redacted>",
    "https://host/it?key=hunter22#/a?jwt=hunter22": "https://host/it?key=<redacted>#/a?jwt=<redacted>",
    "jdbc:sqlserver://host;user=me;password=hunter22": "jdbc:sqlserver://host;user=me;password=<redacted>",
    "https://hunter22@host/pypi": "https://<redacted>@host/pypi",
    # and what is none
    "https://host/package@1.2/it.whl?max_tokens=5": "https://host/package@1.2/it.whl?max_tokens=5",
    "http://localhost:5000/a@b": "http://localhost:5000/a@b",
    "sqlite:////home/me@work/mlflow.db": "sqlite:////home/me@work/mlflow.db",
    "file:///data/a@b": "file:///data/a@b",
    "http://[::1]:5000/": "http://[::1]:5000/",
}  # fmt: skip


@F8
def test_names_and_addresses(got):
    assert [name for name in SECRET if not is_secret(name)] == [name for name in OPEN if is_secret(name)] == []
    assert {address: without_secrets(address) for address in ADDRESSES} == ADDRESSES
    assert all(map(is_plain, (3, 0.5, True, None, "12", "-1e-3", "true", "False")))
    assert not any(map(is_plain, ("1a", "hunter22", "trueish", "0x")))
    got(f"{len(SECRET)} names hidden, {len(OPEN)} not; {len(ADDRESSES)} addresses")


@F8
def test_a_redacted_run_can_be_evaluated(alone_dir, tmp_path, got):
    """A password that is a word of the class's name, too; sizes whose names hold a secret's word."""
    import omegaconf

    from tfscale.redaction import redacted_yaml

    shutil.copytree(alone_dir, tmp_path / "it")
    file = tmp_path / "it" / "config.yaml"
    tree = omegaconf.OmegaConf.load(file)
    tracker = {
        "_target_": "tfscale.tracking.mlflow.MlflowTracker",
        "uri": "postgresql://me:Dense/22@host/db?token=Table1",
    }
    given = omegaconf.OmegaConf.merge(
        tree, {"tracker": tracker, "job": {"auth": {"retries": 3, "on": True, "pin": "abc"}}}
    )
    program = (
        "import sys, omegaconf\nfrom tfscale.errors import keep_secret\nfrom tfscale.redaction import redacted_yaml\n"
        "keep_secret(['support.dense_models'])\nprint(redacted_yaml(omegaconf.OmegaConf.create(sys.stdin.read())), end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=omegaconf.OmegaConf.to_yaml(given),
        text=True,
        capture_output=True,
        check=True,
    )
    redacted = omegaconf.OmegaConf.create(done.stdout)
    assert redacted.tracker.uri == "postgresql://<redacted>@host/db?token=<redacted>"
    assert redacted.job.auth == {"retries": 3, "on": True, "pin": "<redacted>"}
    assert redacted.task._target_ == "support.dense_models.Dense" and redacted.data == tree.data
    del redacted["job"]
    redacted.extensions.allow = []
    file.write_text(redacted_yaml(redacted))
    command = ["-m", "tfscale.evaluate", "run.dir=it", "extensions.allow=[support.dense_models.]"]
    ended = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environ(), capture_output=True, text=True)
    got(f"evaluated: {ended.returncode}")
    assert ended.returncode == 0, ended.stderr


@F9
@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("job.env.DB_PASS=hunter22", 77),
        ("job.env.MYSQL_PWD=hunter22", 77),
        ("job.env={A: 1, apiKey: hunter22}", 77),
        ("tracker.uri='postgresql://me:hunter/22@host/db'", 77),
        ("tracker.uri='https://host/?token=hunter22'", 77),
        ("job.env.NAME=${oc.env:HUNTER}", 77),
        ("job.image=${oc.env:HUNTER}", 77),
        ("job.env.MAX_TOKENS=4096", 0),
        ("job.env.USE_AUTH=true", 0),
        ("tracker.uri=${oc.env:HUNTER}", 0),
    ],
)
def test_manifests_hold_no_secret(override, code, got):
    command = ["-m", "tfscale.k8s", "+recipe=resnet", "job=job", "job.run_claim=runs", "job.image=it", "tracker=mlflow"]
    done = subprocess.run(
        [sys.executable, *command, override], env={**environ(), "HUNTER": "hunter22"}, capture_output=True, text=True
    )
    got(f"{override.partition('=')[0]}: {done.returncode}")
    assert done.returncode == code, done.stderr
    assert "hunter" not in (done.stdout + done.stderr).replace("${oc.env:HUNTER}", "")
    if code:
        assert "kubectl create secret generic" in done.stderr and not done.stdout
    elif "oc.env" in override:
        assert done.stdout.count("${oc.env:HUNTER}") == 2  # the command and the pod's argument
