"""A validator key in a PKCS#11 token, with SoftHSM: made and kept there, one mark, wrong PINs."""

from __future__ import annotations

import os
import shutil
import subprocess
import traceback
from pathlib import Path

import pytest

from comity.ceremony import Address
from comity.cli.ceremony import key_of
from comity.joining import new_member
from comity.members import read_member
from consensus import signing
from consensus.errors import PassphraseError
from node.errors import ForeignDataError, KeyStoreError
from node.network.tls import make_certificate
from node.signing import main
from node.signing.config import load
from node.signing.token import TokenStore
from tests.consensus.ledger.test_succession import GENESIS

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is absent: pip install comity[pkcs11]")
pytestmark = pytest.mark.skipif(
    not (MODULE.exists() and shutil.which("softhsm2-util")),
    reason="SoftHSM is absent: apt-get install softhsm2",
)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The label of a token in a store of its own. The module reads its settings once a process."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(settings)
    words = "softhsm2-util --init-token --free --label comity --pin 1234 --so-pin 5678"
    subprocess.run(words.split(), check=True, capture_output=True)
    return "comity"


def configured(folder: Path, token: str, key_label: str, pin: str = "1234") -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "genesis.cbor").write_bytes(GENESIS.encode())
    (folder / "pin").write_text(pin + "\n")
    (folder / "pin").chmod(0o600)
    path = folder / "signer.toml"
    path.write_text(
        "[signer]\n"
        'genesis = "genesis.cbor"\nsocket = "s"\n'
        f'client_user = "{os.geteuid()}"\n'
        "[token]\n"
        f'module = "{MODULE}"\nlabel = "{token}"\nkey_label = "{key_label}"\npin_file = "pin"\n'
    )
    return path


def test_a_key_is_made_in_the_token_signs_and_stays_there(tmp_path: Path, token: str) -> None:
    path = configured(tmp_path / "a", token, "made")
    public = main.init_token(path)
    key = TokenStore.open(load(path, {}), {})
    message = signing.message(signing.TAG_VOTE, bytes(32), b"body")
    signing.verify(public, message, key.seal(message))
    assert key.public == public
    private = key._private
    assert private[pkcs11.Attribute.EXTRACTABLE] is False
    assert private[pkcs11.Attribute.SENSITIVE] is True
    key.close()
    with pytest.raises(KeyStoreError, match="there is a 'made' in the token 'comity' already"):
        main.init_token(path)


def test_the_token_remembers_its_one_mark(tmp_path: Path, token: str) -> None:
    path = configured(tmp_path / "a", token, "bound")
    main.init_token(path)
    with pytest.raises(Exception, match="there is no mark"):
        main.check(path)
    begun = main.init(path)
    assert any("signs in" in line for line in main.check(path))
    other = configured(tmp_path / "b", token, "bound")
    with pytest.raises(ForeignDataError, match="begun with another mark"):
        main.init(other)
    # the mark alone is not enough
    shutil.copy(begun.mark, other.parent / "signer.mark")
    with pytest.raises(ForeignDataError, match="was not begun with the mark"):
        main.check(other)
    main.check(path)


def test_a_session_that_broke_is_opened_again(tmp_path: Path, token: str) -> None:
    path = configured(tmp_path / "a", token, "broken")
    main.init_token(path)
    key = TokenStore.open(load(path, {}), {})
    key._session.close()
    message = signing.message(signing.TAG_VOTE, bytes(32), b"body")
    signing.verify(key.public, message, key.seal(message))
    key.close()


def test_a_member_file_is_signed_where_the_key_lies(tmp_path: Path, token: str) -> None:
    path = configured(tmp_path / "a", token, "member")
    public = main.init_token(path)
    address = Address("10.0.0.1", 7400, "10.0.0.1", 7401)
    with key_of(path) as holder:
        made = new_member(
            bytes(32), "health", address, {}, make_certificate=make_certificate, holder=holder
        )
    assert read_member(made.member, bytes(32)).validator.key == public
    assert list(made.files) == ["node"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('label = "comity"', 'label = "none"'), "there is no token 'none'"),
        (('key_label = "absent"', 'key_label = "other"'), "there is no Ed25519 key 'other'"),
        ((str(MODULE), "/none.so"), "there is no PKCS#11 module at /none.so"),
        ((str(MODULE), "/etc/hostname"), "the module /etc/hostname cannot be used"),
        (('pin_file = "pin"', 'pin_file = "none"'), "cannot open the PIN file"),
        (('pin_file = "pin"', ""), "the token's PIN was not given"),
        (('label = "comity"', ""), "[token] needs a label"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(
    tmp_path: Path, token: str, change: tuple[str, str], said: str
) -> None:
    path = configured(tmp_path / "a", token, "absent")
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(Exception) as caught:
        main.check(path)
    assert said in str(caught.value)
    assert getattr(caught.value, "hint", "")


def test_a_wrong_pin_is_told(tmp_path: Path, token: str) -> None:
    path = configured(tmp_path / "a", token, "absent", pin="9999")
    with pytest.raises(KeyStoreError, match="the PIN does not open the token 'comity'") as caught:
        main.check(path)
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert "9999" not in shown


def test_the_pin_comes_from_its_file_or_from_systemds_credential(
    tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configured(tmp_path / "a", token, "credential")
    public = main.init_token(path)
    path.write_text(path.read_text().replace('pin_file = "pin"', ""))
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    given = {"CREDENTIALS_DIRECTORY": str(credentials)}
    with pytest.raises(PassphraseError, match="PIN was not given") as caught:
        TokenStore.open(load(path, {}), given)
    assert "LoadCredentialEncrypted=pin:" in caught.value.hint
    (credentials / "pin").write_text("1234\n")
    key = TokenStore.open(load(path, {}), given)
    assert key.public == public
    key.close()
    (credentials / "pin").write_text("0000")
    with pytest.raises(KeyStoreError, match="the PIN does not open the token"):
        TokenStore.open(load(path, {}), given)
    # a file that is named comes first
    path.write_text(path.read_text() + 'pin_file = "pin"\n')
    TokenStore.open(load(path, {}), given).close()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "none"))
    assert main.open_key(load(path, {}), os.environ).public == public
