"""Every command of an operator against every fault that it can meet: one table.

Each cell is a command line, the fault in its way, and what must come of it: the exit status, one
sentence of what happened that names the thing, one of what to do, and nothing changed on the disk.
What a command says while nodes answer is in the tests of that command.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comity import founding, keys
from comity.ceremony import Address
from comity.cli.app import REFUSED, UNREACHABLE, USAGE, run
from comity.feeding import check_parquet, check_postgres, parquet, postgres
from comity.joining import new_member
from consensus import keyfile
from consensus.genesis import chain_id
from consensus.keyfile import KeyKind
from node import main
from node.backup import making
from node.network.tls import make_certificate
from node.signing import main as signing
from node.snapshots import importing
from tests.comity.shell import Said
from tests.comity.test_ceremony import AGENCIES, TERMS
from tests.comity.test_commands_page import COMMANDS
from tests.comity.twin import AGENCIES as TWINS
from tests.consensus.audit.ledger import honest
from tests.node.backup.test_verifying import data_of_a_node

LOADED_WHEN_CALLED = (check_parquet, check_postgres, parquet, postgres, main, signing, importing)
"""By commands; here before a test is another user, who could not read them."""
ROOT = Path(__file__).parents[2]
CHARTER = ROOT / "configs" / "rules" / "charter.toml"
NOBODY = 65_534
SMALL_BYTES = 96
"""The size at which files stop to grow where a disk is said to be full."""

INPUT, PASSPHRASE, MISSING, MODE, OWNER = "input", "passphrase", "missing", "mode", "owner"
UNREADABLE, UNWRITABLE, FULL, DOWN, GENESIS = "unreadable", "unwritable", "full", "down", "genesis"


@dataclass(frozen=True)
class Cell:
    """A command line, its fault, and what must come of it.

    ``said`` is part of the sentence of what happened, ``do`` of what to do. ``shut`` is a file that
    may not be read, or a folder that may not be written to. ``changed`` are lines of a file.
    """

    command: str
    fault: str
    words: str
    said: str
    do: str
    status: int = USAGE
    shut: str = ""
    edit: tuple[str, str, str] | None = None
    modes: tuple[tuple[str, int], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    leaves: str = ""
    """What was begun and can be gone on with."""

    @property
    def line(self) -> list[str]:
        """The words of the command line."""
        return [*self.command.split(), *self.words.split()]


AT = "--peers 10.0.0.1:7400 --clients 10.0.0.1:7401"
ENROL = f"founding/terms.toml --agency registry {AT} -o new"
MEMBERS = " ".join(f"founding/{each}/{each}.member" for each in AGENCIES)
REACH = "--genesis net --patience 0.25 --key person.key"
SEALED = "--genesis net --patience 0.25 --key sealed.key"
WIDE = "--genesis net --patience 0.25 --key wide.key"
NO_NET = "--genesis nowhere --key person.key"
WRONG = {"COMITY_KEY_PASSPHRASE": "wrong"}
NODE_WRONG = {"COMITY_NODE_PASSPHRASE": "wrong"}
NO_FILE = "No such file or directory"
DENIED = "Permission denied"
NAME_GENESIS = "name it with --genesis"
NAME_CONFIG = "name the configuration"
USER = "run it as the user"
CHECK_PATH = "check the path"
RAISE = "raise the limit"
DOOR = "nothing listens there"
NODES_RUN = "check that the nodes run"
OPENS_NOT = "the passphrase does not open"
TRIES_ONE = "`comity keys check"
WIDE_KEY = "wide.key can be read by others"
CHMOD = "chmod 600"


def _client(
    command: str, words: str = "", *, passphrase: bool = True, leaves: str = ""
) -> list[Cell]:
    """What is in the way of every command that asks the network with a key."""
    found = [
        Cell(command, MISSING, f"{words} {NO_NET}", f"nowhere: {NO_FILE}", NAME_GENESIS),
        Cell(command, DOWN, f"{words} {REACH}", DOOR, NODES_RUN, UNREACHABLE, leaves=leaves),
        Cell(command, GENESIS, f"{words} --genesis junk", "junk is no genesis", NAME_GENESIS),
    ]
    if passphrase:
        wrong = Cell(
            command, PASSPHRASE, f"{words} {SEALED}", OPENS_NOT, TRIES_ONE, environment=WRONG
        )
        found += [wrong, Cell(command, MODE, f"{words} {WIDE}", WIDE_KEY, CHMOD)]
    return found


def _config(command: str, what: str, config: str, wrong: str, more: str = "") -> list[Cell]:
    """What can be wrong with a configuration of a node or signer and the files that it names."""

    def cell(fault: str, said: str, do: str, words: str = config, **other: Any) -> Cell:
        return Cell(command, fault, f"{words} {more}", said, do, **other)

    file = f"{config}/{what}.toml"
    return [
        cell(MISSING, f"cannot read nowhere: {NO_FILE}", NAME_CONFIG, "nowhere"),
        cell(MISSING, "gone.key", "put it there", edit=(file, "validator.key", "gone.key")),
        cell(INPUT, "unknown [", "mend", edit=(file, "genesis =", "gneesis =")),
        cell(INPUT, "not valid TOML", "mend", edit=(file, f"[{what}]", f"[{what}")),
        cell(INPUT, "holds a node key", "right file", edit=(file, "validator.key", "node.key")),
        cell(GENESIS, "cannot read the genesis", "name", edit=(file, "genesis.cbor", "gone.cbor")),
        cell(GENESIS, "cannot be used", "copy", edit=(file, "genesis.cbor", f"{what}.toml")),
        cell(MODE, "has mode 0644", "chmod 600", modes=((f"{config}/keys/validator.key", 0o644),)),
        cell(UNREADABLE, DENIED, "node's user", shut=f"{config}/keys/validator.key"),
        cell(UNREADABLE, DENIED, USER, shut=file),
        cell(PASSPHRASE, OPENS_NOT, TRIES_ONE, wrong, environment=NODE_WRONG),
        cell(PASSPHRASE, "no passphrase was given", "passphrase_file", wrong),
    ]


def _dsn(command: str) -> list[Cell]:
    """What can be wrong with where a database is."""
    rest = f"{REACH} --once" if "check" not in command else REACH
    return [
        Cell(command, INPUT, rest, "say where the database is", "--dsn-file or --service"),
        Cell(command, INPUT, f"--dsn-file junk {rest}", "no connection string", "host="),
        Cell(command, INPUT, f"--dsn-file dsn --schema pg_x {rest}", "'pg_x' cannot be", "pg_"),
        Cell(command, MISSING, f"--dsn-file nowhere {rest}", f"nowhere: {NO_FILE}", CHECK_PATH),
        Cell(command, MODE, f"--dsn-file wide.dsn {rest}", "others than its owner", CHMOD),
        Cell(command, UNREADABLE, f"--dsn-file dsn {rest}", f"dsn: {DENIED}", USER, shut="dsn"),
    ]


CELLS = [
    # --- network: founding ---
    Cell("network init", INPUT, "--agencies a b -o new", "2 agencies", "below 4"),
    Cell("network init", INPUT, "--agencies a=! b c d -o new", "'!' is no host", "address"),
    Cell("network init", INPUT, "--tree-depth 5 -o new", "5 bits", "even number"),
    Cell("network init", INPUT, f"--name {'x' * 65} -o new", "65 bytes", "--name"),
    Cell("network init", INPUT, "--rules rules -o net", "net is not empty", "--output"),
    Cell("network init", MISSING, "--rules nowhere -o new", "no folder nowhere", "--rules"),
    Cell("network init", MISSING, "--rules rules --plan nowhere -o new", NO_FILE, CHECK_PATH),
    Cell("network init", UNREADABLE, "--rules rules --plan junk -o new", DENIED, USER, shut="junk"),
    Cell("network init", UNWRITABLE, "--rules rules -o shut/new", DENIED, USER, shut="shut"),
    Cell("network init", FULL, "--rules rules -o new", "cannot write to new", RAISE),
    Cell("network terms", INPUT, "junk", "junk: ", "mend the file"),
    Cell("network terms", INPUT, "net/genesis.cbor", "not text in UTF-8", "TOML"),
    Cell("network terms", MISSING, "nowhere", f"nowhere: {NO_FILE}", CHECK_PATH),
    Cell("network terms", UNREADABLE, "junk", DENIED, USER, shut="junk"),
    Cell("network enrol", INPUT, ENROL.replace("1:7400", "1"), "is not host:port", "10.3.0.5:7400"),
    Cell(
        "network enrol",
        INPUT,
        ENROL.replace("10.0.0.1:7400", "http://x:1"),
        "is no host",
        "address",
    ),
    Cell(
        "network enrol",
        INPUT,
        ENROL.replace("registry", "police"),
        "no agency 'police'",
        "agencies are",
    ),
    Cell(
        "network enrol",
        INPUT,
        ENROL.replace("-o new", "-o junk"),
        "cannot use junk",
        "name a folder",
    ),
    Cell(
        "network enrol",
        INPUT,
        ENROL.replace("1:7401", "1:7400"),
        "are both 10.0.0.1:7400",
        "a port of its own",
    ),
    Cell("network enrol", MISSING, ENROL.replace("terms", "gone"), NO_FILE, CHECK_PATH),
    Cell("network enrol", MISSING, f"{ENROL} --passphrase-file nowhere", NO_FILE, CHECK_PATH),
    Cell("network enrol", MISSING, f"{ENROL} --signer nowhere", NO_FILE, NAME_CONFIG),
    Cell("network enrol", MODE, f"{ENROL} --passphrase-file wide.key", WIDE_KEY, CHMOD),
    Cell("network enrol", UNREADABLE, ENROL, DENIED, USER, shut="founding/terms.toml"),
    Cell(
        "network enrol",
        UNWRITABLE,
        ENROL.replace("-o new", "-o shut/new"),
        DENIED,
        USER,
        shut="shut",
    ),
    Cell("network enrol", FULL, ENROL, "cannot write new/keys/node.key", RAISE),
    Cell(
        "network enrol",
        FULL,
        ENROL.replace("founding/terms.toml", "net/genesis.cbor"),
        "cannot write new/keys",
        RAISE,
    ),
    Cell(
        "network enrol",
        GENESIS,
        ENROL.replace("founding/terms.toml", "person.key"),
        "neither terms in TOML nor a genesis file",
        "genesis.cbor",
    ),
    Cell("network merge", INPUT, f"founding/terms.toml {MEMBERS} junk -o new", "junk: ", "mend it"),
    Cell("network merge", INPUT, f"founding/terms.toml {MEMBERS} -o junk", "junk", "name a"),
    Cell("network merge", MISSING, f"nowhere {MEMBERS} -o new", NO_FILE, CHECK_PATH),
    Cell("network merge", MISSING, "founding/terms.toml nowhere -o new", NO_FILE, CHECK_PATH),
    Cell(
        "network merge",
        MISSING,
        f"founding/terms.toml {MEMBERS.rpartition(' ')[0]} -o new",
        "the file of integrity is missing",
        "everybody merges again",
    ),
    Cell(
        "network merge",
        UNREADABLE,
        f"founding/terms.toml {MEMBERS} -o new",
        DENIED,
        USER,
        shut="founding/social/social.member",
    ),
    Cell(
        "network merge",
        UNWRITABLE,
        f"founding/terms.toml {MEMBERS} -o shut",
        DENIED,
        USER,
        shut="shut",
    ),
    Cell(
        "network merge",
        FULL,
        f"founding/terms.toml {MEMBERS} -o founding/social",
        "cannot write to founding/social",
        RAISE,
    ),
    Cell(
        "network merge",
        GENESIS,
        f"founding/terms.toml {MEMBERS} net.member -o new",
        "which is no agency of these terms",
        "everybody merges again",
    ),
    # --- network: members ---
    *_client("network members"),
    Cell(
        "network members", INPUT, REACH.replace("0.25", "0"), "--patience is more than 0", "--help"
    ),
    Cell("network members", UNREADABLE, REACH, DENIED, USER, shut="person.key"),
    *_client("network propose-member", "net.member"),
    Cell("network propose-member", INPUT, f"junk {REACH}", "the member file cannot", "again"),
    Cell("network propose-member", INPUT, f"net.member --scope x {REACH}", "NAME=VALUE", "roles="),
    Cell("network propose-member", MISSING, f"nowhere {REACH}", NO_FILE, CHECK_PATH),
    Cell(
        "network propose-member", UNREADABLE, f"net.member {REACH}", DENIED, USER, shut="net.member"
    ),
    *_client("network admit", "health --title H --administrator person.key"),
    Cell(
        "network admit",
        INPUT,
        f"health --title H --administrator person.key --subject x {REACH}",
        "'x' is no token",
        "64 hex digits",
    ),
    Cell(
        "network admit",
        MISSING,
        f"health --title H --administrator nowhere {REACH}",
        "neither a public key of 64 hex digits nor a key file",
        "comity keys show",
    ),
    *_client("network leave", "registry"),
    Cell("network leave", INPUT, f"registry --from soon {REACH}", "is no time", "write 2026"),
    *_client("network rotate", "net/registry"),
    Cell(
        "network observe",
        MISSING,
        "nowhere --name court --clients 10.0.0.1:7401 --follow registry=10.0.0.9:1 -o new",
        NO_FILE,
        "name the file",
    ),
    Cell(
        "network observe",
        INPUT,
        "net/genesis.cbor --name court --clients 10.0.0.1:7401 --follow registry -o new",
        "'registry' names no door",
        "agency=host:port",
    ),
    Cell("network rotate", INPUT, f"net/registry --keep all {REACH}", "'all' is no key", "or node"),
    Cell("network rotate", MISSING, f"nowhere {REACH}", "nowhere/node.toml", NAME_CONFIG),
    Cell(
        "network rotate",
        MISSING,
        f"net/registry --passphrase-file nowhere {REACH}",
        NO_FILE,
        CHECK_PATH,
    ),
    Cell(
        "network rotate", MODE, f"net/registry --passphrase-file wide.key {REACH}", WIDE_KEY, CHMOD
    ),
    Cell(
        "network rotate",
        PASSPHRASE,
        f"sealed --keep validator {REACH}",
        OPENS_NOT,
        TRIES_ONE,
        environment=WRONG,
    ),
    *_client("network object", "3"),
    Cell("network object", INPUT, f"three {REACH}", 'unable to convert "three"', "--help"),
    # --- keys ---
    Cell("keys new", INPUT, "new.key --kind king", '"king"', "--help"),
    Cell("keys new", INPUT, "person.key", "person.key exists already", "never overwritten"),
    Cell("keys new", INPUT, "new.key --seal", "there is no terminal", "--passphrase-file"),
    Cell("keys new", MISSING, "new.key --passphrase-file nowhere", NO_FILE, CHECK_PATH),
    Cell("keys new", MISSING, "nowhere/new.key", NO_FILE, CHECK_PATH),
    Cell("keys new", PASSPHRASE, "new.key --passphrase-file empty", "one line", "write the"),
    Cell("keys new", MODE, "new.key --passphrase-file wide.key", WIDE_KEY, CHMOD),
    Cell("keys new", UNWRITABLE, "shut/new.key", DENIED, USER, shut="shut"),
    Cell("keys new", FULL, "new.key", "cannot write new.key", RAISE),
    Cell("keys show", INPUT, "junk", "junk is no key file", "comity keys new"),
    Cell("keys show", MISSING, "nowhere", NO_FILE, "comity keys new"),
    Cell("keys show", MODE, "wide.key", WIDE_KEY, CHMOD),
    Cell("keys show", UNREADABLE, "person.key", DENIED, USER, shut="person.key"),
    Cell("keys show", OWNER, "anothers.key", "belongs to another user", "of your own"),
    Cell("keys check", INPUT, "junk", "junk is no key file", "comity keys new"),
    Cell("keys check", INPUT, "person.key --warn-days -3", "-3 is not 0 to", "0 is never"),
    Cell("keys check", MISSING, "nowhere", NO_FILE, "comity keys new"),
    Cell("keys check", MODE, "wide.key", WIDE_KEY, CHMOD),
    Cell("keys check", UNREADABLE, "person.key", DENIED, USER, shut="person.key"),
    Cell("keys check", OWNER, "anothers.key", "belongs to another user", "of your own"),
    Cell("keys check", PASSPHRASE, "sealed.key", OPENS_NOT, TRIES_ONE, environment=WRONG),
    Cell("keys check", PASSPHRASE, "sealed.key", "no passphrase", "COMITY_KEY_PASSPHRASE"),
    Cell("keys check", GENESIS, "person.key --genesis junk", "genesis file junk", NAME_GENESIS),
    Cell("keys passphrase", INPUT, "junk --remove", "junk is no key file", "comity keys new"),
    Cell("keys passphrase", INPUT, "person.key", "there is no terminal", "--new-passphrase-file"),
    Cell("keys passphrase", MISSING, "nowhere --remove", NO_FILE, "comity keys new"),
    Cell("keys passphrase", MODE, "wide.key --remove", WIDE_KEY, CHMOD),
    Cell("keys passphrase", UNREADABLE, "person.key --remove", DENIED, USER, shut="person.key"),
    Cell("keys passphrase", OWNER, "anothers.key --remove", "another user", "of your own"),
    Cell(
        "keys passphrase",
        PASSPHRASE,
        "sealed.key --remove --passphrase-file wrong",
        OPENS_NOT,
        TRIES_ONE,
    ),
    Cell(
        "keys passphrase",
        FULL,
        "person.key --new-passphrase-file right",
        "cannot write person",
        RAISE,
    ),
    # --- signer ---
    *_config("signer check", "signer", "signer", "sealed"),
    *_config("signer run", "signer", "signer", "sealed"),
    *_config("signer init", "signer", "signer", "sealed"),
    Cell(
        "signer check", MODE, "signer", "anybody may write", "chmod 700", modes=(("signer", 0o777),)
    ),
    Cell(
        "signer check",
        INPUT,
        "signer",
        "140 bytes",
        "shorter",
        edit=("signer/signer.toml", 'socket = "', f'socket = "/{"x" * 128}/'),
    ),
    Cell(
        "signer check",
        INPUT,
        "signer",
        "no user of this machine",
        "`id`",
        edit=("signer/signer.toml", 'user = "', 'user = "nobody-here-'),
    ),
    Cell(
        "signer check",
        GENESIS,
        "signer",
        "another network",
        "the genesis file",
        REFUSED,
        edit=("signer/signer.toml", "genesis.cbor", "../node/genesis.cbor"),
    ),
    Cell("signer run", MISSING, "unsigned", "there is no mark", "signer init", REFUSED),
    Cell("signer init", MISSING, "unsigned --from-mark nowhere", "no mark at", "signer.mark"),
    Cell("signer init", INPUT, "signer", "a mark at", "never begun anew"),
    Cell("signer init", FULL, "unsigned", "the mark cannot be begun", "free space"),
    Cell("signer init-token", INPUT, "signer", "names no [token]", "comity keys new"),
    Cell("signer init-token", MISSING, "nowhere", NO_FILE, NAME_CONFIG),
    Cell("signer init-token", MISSING, "token", "cannot open the PIN file", "put it there"),
    Cell("signer init-token", UNREADABLE, "token", DENIED, USER, shut="token/signer.toml"),
    # --- node ---
    *_config("node run", "node", "net/registry", "sealed"),
    *_config("node check", "node", "net/registry", "sealed"),
    Cell("node run", MODE, "node", "anybody may write", "chmod 700", modes=(("node/data", 0o777),)),
    Cell("node run", OWNER, "net/social", "of user 65534", "chown"),
    Cell("node check", OWNER, "net/social", "of user 65534", "chown"),
    Cell(
        "node check",
        INPUT,
        "net/registry",
        "no validator in",
        "agency is one of",
        edit=("net/registry/node.toml", '"registry"', '"police"'),
    ),
    Cell(
        "node check",
        INPUT,
        "net/registry",
        "is not the key that the genesis",
        "validator_key",
        edit=("net/registry/node.toml", "keys/validator.key", "../treasury/keys/validator.key"),
    ),
    Cell(
        "node check",
        INPUT,
        "net/registry",
        "is not a folder",
        "[node] data",
        edit=("net/registry/node.toml", '"data"', '"node.toml"'),
    ),
    Cell("node backup", INPUT, "node -o new --rate -1", "--rate -1", "--help"),
    Cell("node backup", INPUT, "node -o net", "net exists", "new folder"),
    Cell("node backup", INPUT, "net/registry -o new", "there is no store", "data folder"),
    Cell("node backup", MISSING, "nowhere -o new", NO_FILE, NAME_CONFIG),
    Cell("node backup", MISSING, "node -o nowhere/new", "no folder nowhere", "make it"),
    Cell("node backup", UNREADABLE, "node -o new", DENIED, USER, shut="node/node.toml"),
    Cell("node backup", UNWRITABLE, "node -o shut/new", DENIED, USER, shut="shut"),
    Cell("node backup", FULL, "node -o new", "cannot write new", RAISE),
    Cell("node backup", FULL, "node -o new.tar", "cannot write new.tar", RAISE),
    Cell(
        "node backup",
        GENESIS,
        "node -o new",
        "another network",
        "the genesis file",
        REFUSED,
        edit=("node/node.toml", "genesis.cbor", "../net/genesis.cbor"),
    ),
    Cell("node restore", INPUT, "net net/registry", "net is no backup", "whole one", REFUSED),
    Cell(
        "node restore",
        INPUT,
        "junk net/registry",
        "cannot be read as a tar",
        "another backup",
        REFUSED,
    ),
    Cell("node restore", INPUT, "monday node", "not empty", "move what is in it"),
    Cell("node restore", MISSING, "nowhere net/registry", "no backup at nowhere", "name its"),
    Cell("node restore", MISSING, "monday nowhere", NO_FILE, NAME_CONFIG),
    Cell(
        "node restore", UNREADABLE, "monday empty-node", DENIED, USER, shut="monday/manifest.cbor"
    ),
    Cell("node restore", FULL, "monday empty-node", "cannot write the node's data", RAISE),
    Cell(
        "node restore",
        GENESIS,
        "monday net/registry",
        "is of the network twin",
        "name the",
        REFUSED,
    ),
    Cell("node verify-store", INPUT, "net --genesis node", "no store in", "data folder"),
    Cell("node verify-store", MISSING, "nowhere", "there is no nowhere", "name a node's"),
    Cell("node verify-store", UNREADABLE, "node", DENIED, USER, shut="node/node.toml"),
    Cell(
        "node verify-store",
        GENESIS,
        "node --genesis net",
        "belongs to another network",
        "with --genesis",
        REFUSED,
    ),
    Cell("node verify-store", GENESIS, "node/data", "cannot read the genesis", NAME_GENESIS),
    Cell("node inspect", INPUT, "net/genesis.cbor", "not text in UTF-8", NAME_CONFIG),
    Cell("node inspect", MISSING, "nowhere", "there is no nowhere", "name a node's"),
    Cell("node inspect", UNREADABLE, "node", DENIED, USER, shut="node/node.toml"),
    Cell("node inspect", GENESIS, "node/data --genesis junk", "junk is no genesis", NAME_GENESIS),
    *_client("node status", passphrase=False),
    Cell(
        "node status",
        INPUT,
        f"{REACH} --server nobody",
        "no agency 'nobody'",
        "members are",
        UNREACHABLE,
    ),
    # --- copies for reports ---
    *_dsn("feed postgres"),
    *_dsn("feed check postgres"),
    Cell(
        "feed postgres",
        DOWN,
        f"--dsn-file dsn {REACH} --once",
        "database cannot be reached",
        "start it again",
        UNREACHABLE,
    ),
    Cell("feed postgres", INPUT, f"--dsn-file dsn {REACH} --once --until 3", "two ends", "one of"),
    Cell(
        "feed check postgres",
        DOWN,
        f"--dsn-file dsn {REACH}",
        "database cannot be reached",
        "start it again",
        UNREACHABLE,
    ),
    *_client("feed parquet", "-o copy --once", leaves="copy"),
    Cell("feed parquet", INPUT, f"-o net {REACH} --once", "files of somebody else", "empty folder"),
    Cell("feed parquet", INPUT, f"-o copy {REACH} --from -1", "--from -1 is no", "count from 0"),
    Cell("feed parquet", INPUT, f"-o junk {REACH} --once", "junk cannot be written", "another"),
    Cell(
        "feed parquet", UNWRITABLE, "-o shut/copy --genesis net --once", DENIED, USER, shut="shut"
    ),
    Cell(
        "feed parquet",
        FULL,
        f"-o copy {REACH} --once",
        "cannot be written now",
        "the disk",
        UNREACHABLE,
        leaves="copy",
    ),
    *_client("feed check parquet", "-o copied", passphrase=False),
    Cell("feed check parquet", INPUT, f"-o net {REACH}", "net holds no copy", "feed parquet"),
    # --- files of others ---
    Cell("cosign", INPUT, f"junk {REACH}", "junk: ", "submit --circulate"),
    Cell("cosign", MISSING, f"nowhere {REACH}", NO_FILE, CHECK_PATH),
    Cell("cosign", UNREADABLE, f"junk {REACH}", DENIED, USER, shut="junk"),
    Cell("send", INPUT, f"net/genesis.cbor {REACH}", "net/genesis.cbor: ", "submit --circulate"),
    Cell("send", MISSING, f"nowhere {REACH}", NO_FILE, CHECK_PATH),
    Cell("send", GENESIS, "junk --genesis junk", "junk is no genesis", NAME_GENESIS),
    Cell("verify", INPUT, "net/genesis.cbor --genesis net", "net/genesis.cbor: ", "another copy"),
    Cell("verify", MISSING, "nowhere --genesis net", f"nowhere: {NO_FILE}", CHECK_PATH),
    Cell("verify", UNREADABLE, "junk --genesis net", DENIED, USER, shut="junk"),
    Cell("verify", GENESIS, "junk --genesis junk", "junk is no genesis", NAME_GENESIS),
    Cell("statement", INPUT, f"-4 {REACH}", "'-4' is no height", "count from 0"),
    Cell("statement", MISSING, f"nowhere {REACH}", f"nowhere: {NO_FILE}", CHECK_PATH),
    Cell("rules check", INPUT, "net/genesis.cbor", "not text in UTF-8", "TOML"),
    Cell("rules check", MISSING, "nowhere.toml", NO_FILE, CHECK_PATH),
    Cell("rules check", UNREADABLE, "rules/charter.toml", DENIED, USER, shut="rules/charter.toml"),
    # --- a network to try ---
    Cell("devnet", INPUT, "net --size 4", "holds a network already", "goes on with it"),
    Cell("devnet", INPUT, "--size 2 --rules rules", "2 agencies", "below 4"),
    Cell("devnet", MISSING, "new --rules nowhere", "no folder nowhere", "--rules"),
    Cell("devnet", UNWRITABLE, "shut/new --rules rules", DENIED, USER, shut="shut"),
    Cell("devnet", FULL, "new --rules rules", "cannot write to new", RAISE),
    # --- snapshots ---
    Cell("snapshot export", INPUT, "--node net/registry -o new", "there is no store", "data"),
    Cell("snapshot export", MISSING, "--node nowhere -o new --genesis net", "store", "data"),
    Cell("snapshot verify", INPUT, "junk --genesis net", "junk", "whole"),
    Cell("snapshot verify", MISSING, "nowhere --genesis net", f"nowhere: {NO_FILE}", CHECK_PATH),
    Cell("snapshot import", INPUT, "junk --node net/registry", "junk", "whole"),
    Cell("snapshot import", MISSING, "nowhere --node net/registry", NO_FILE, CHECK_PATH),
    Cell("snapshot import", INPUT, "junk --node node", "is not empty", "a new node"),
]


# --- where they are tried -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """A folder of everything that the cells name, made once; every cell leaves it as it is."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    before = Path.cwd()
    os.chdir(place)
    try:
        _lay_out(place)
        yield place
    finally:
        os.chdir(before)
        shutil.rmtree(place)


def _lay_out(place: Path) -> None:
    _lay_out_keys()
    for folder in ("rules", "founding/rules"):
        Path(folder).mkdir(parents=True)
        shutil.copy(CHARTER, folder)
    members = founding.members_of(AGENCIES, 1)  # privileged ports: nothing of ours listens there
    made = founding.found(
        "net",
        members,
        founding.read_rules(Path("rules")),
        [],
        [],
        time_ms=1,
        make_certificate=make_certificate,
        tree_depth=4,
    )
    founding.write(made, Path("net"))
    address = Address("10.0.0.9", 7400, "10.0.0.9", 7401)
    chain = chain_id(made.genesis)
    new = new_member(chain, "health", address, {}, make_certificate=make_certificate)
    Path("net.member").write_bytes(new.member)
    manifest = {"format": 1, "chain": chain.hex(), "first": 0, "height": 1, "statement_hash": ""}
    Path("copied").mkdir()
    Path("copied/manifest.json").write_text(
        json.dumps({**manifest, "number": 1, "columns": {}, "files": []})
    )
    _lay_out_founding()
    _lay_out_signers()
    _lay_out_node(place)
    if os.geteuid() == 0:
        Path("net/social/data").mkdir(mode=0o700)
        os.chown("net/social/data", NOBODY, NOBODY)


def _lay_out_keys() -> None:
    pair = keyfile.from_seed(KeyKind.CLIENT, bytes(range(32)))
    for name in ("person.key", "wide.key", "anothers.key"):
        keys.create(Path(name), pair)
    Path("wide.key").chmod(0o644)
    if os.geteuid() == 0:
        os.chown("anothers.key", NOBODY, NOBODY)
    Path("sealed.key").write_bytes(_sealed(pair))
    texts = {"junk": "x = [", "right": "right", "wrong": "wrong", "empty": "", "wide.dsn": "x"}
    for name, text in {**texts, "dsn": "host=127.0.0.1 port=1 dbname=x"}.items():
        Path(name).write_text(f"{text}\n")
        Path(name).chmod(0o644 if name == "wide.dsn" else 0o600)
    Path("sealed.key").chmod(0o600)
    Path("shut").mkdir()


def _sealed(pair: keyfile.KeyPair) -> bytes:
    return keyfile.seal(pair, "right", salt=bytes(16), nonce=bytes(24), operations=1, memory_kib=8)


def _lay_out_founding() -> None:
    terms = TERMS.replace('"identity.registrar"', '"charter.administrator"')
    Path("founding/terms.toml").write_text(terms)
    for number, agency in enumerate(AGENCIES):
        at = [f"--peers=10.0.0.{number}:1", f"--clients=10.0.0.{number}:2"]
        line = ["enrol", "founding/terms.toml", "--agency", agency, *at, "-o", f"founding/{agency}"]
        assert run(["network", *line]) == 0


def _lay_out_signers() -> None:
    for name in ("signer", "unsigned", "sealed", "token"):
        shutil.copytree("net/registry", name)
        Path(name).chmod(0o755)
        key = 'key = "keys/validator.key"' if name != "token" else '[token]\nmodule = "/none.so"'
        rest = 'label = "x"\npin_file = "pin"\n' if name == "token" else ""
        Path(name, "signer.toml").write_text(
            f'[signer]\ngenesis = "genesis.cbor"\nsocket = "run/socket"\nclient_user = "0"\n'
            f"{key}\n{rest}"
        )
    own = keyfile.read(Path("sealed/keys/validator.key").read_bytes())
    Path("sealed/keys/validator.key").write_bytes(_sealed(own))
    assert run(["signer", "init", "signer"]) == 0


def _lay_out_node(place: Path) -> None:
    for name in ("node", "empty-node"):
        Path(name, "keys").mkdir(parents=True)
        Path(name, "genesis.cbor").write_bytes(honest().genesis)
        Path(name, "node.toml").write_text(
            f'[node]\nagency = "{TWINS[0]}"\ngenesis = "genesis.cbor"\n'
        )
        for kind in (KeyKind.VALIDATOR, KeyKind.NODE):
            keys.create(Path(name, "keys", f"{kind}.key"), keyfile.from_seed(kind, b"\1" * 32))
        Path(name, "data").mkdir(mode=0o700)
    shutil.copytree(data_of_a_node() / "state", "node/data/state")
    making.make(Path("node/node.toml"), place / "monday", lambda done, of: None, rate=0)


def _contents(place: Path) -> dict[str, object]:
    """What is there. A mark is written again, as it was, whenever it is opened."""
    found: dict[str, object] = {}
    folders = [str(place)]
    while folders:
        for each in os.scandir(folders.pop()):
            if each.is_dir(follow_symlinks=False):
                folders.append(each.path)
                found[each.path] = None
            elif each.name == "signer.mark":
                found[each.path] = Path(each).read_bytes()
            elif not each.name.endswith(("lock", "lock.mdb")):
                found[each.path] = (each.stat().st_size, each.stat().st_mtime_ns)
    return found


@contextmanager
def _shut_off(path: Path) -> Iterator[None]:
    """Take a file's or folder's rights away; root, who needs none, is somebody else meanwhile."""
    mode = path.stat().st_mode
    path.chmod(0o500 if path.is_dir() else 0)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        path.chmod(mode)


@contextmanager
def _moded(modes: tuple[tuple[str, int], ...]) -> Iterator[None]:
    before = [(name, Path(name).stat().st_mode) for name, _ in modes]
    for name, mode in modes:
        Path(name).chmod(mode)
    try:
        yield
    finally:
        for name, mode in before:
            Path(name).chmod(mode)


@contextmanager
def _edited(edit: tuple[str, str, str] | None) -> Iterator[None]:
    if edit is None:
        yield
        return
    file, old, new = edit
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        Path(file).write_text(text)


@contextmanager
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a node's process does to itself away from the tests' process."""
    monkeypatch.setattr("node.hardening.protect", lambda environment: None)
    monkeypatch.setattr("node.main.faulthandler.enable", lambda *_: None)
    monkeypatch.setattr("node.main.gc.set_threshold", lambda *_: None)
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    monkeypatch.setattr(keyfile.seal, "__kwdefaults__", {"operations": 1, "memory_kib": 8})
    monkeypatch.setattr("node.telemetry.logs.structlog.configure", lambda **_: None)
    for name in ("COMITY_GENESIS", "COMITY_SERVERS", "COMITY_KEY_FILE", "COMITY_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "cell",
    [pytest.param(each, id=f"{each.command}-{each.fault}-{at}") for at, each in enumerate(CELLS)],
)
@pytest.mark.usefixtures("untouched")
def test_a_fault_is_told_with_what_to_do_and_leaves_nothing(
    world: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if cell.fault == OWNER and os.geteuid() != 0:
        pytest.skip("only root can make a file of another user")
    for name, value in cell.environment.items():
        monkeypatch.setenv(name, value)
    shut = _shut_off(Path(cell.shut)) if cell.shut else nullcontext()
    full = full_disk() if cell.fault == FULL else nullcontext()
    capsys.readouterr()
    with _edited(cell.edit), _moded(cell.modes):
        before = _contents(world)
        with shut, full:
            status = run([*cell.line, "--json"])
        if cell.leaves:
            shutil.rmtree(cell.leaves)
        after = _contents(world)
    out, err = capsys.readouterr()
    said = Said(status, out, err)
    assert "Traceback" not in out + err
    found = said.json
    assert (said.status, found["status"]) == (cell.status, cell.status), found
    assert found["code"] != "INTERNAL", found
    assert cell.said in found["error"], found
    assert cell.do in found["hint"], found
    for sentence in (found["error"], found["hint"]):
        assert sentence.strip()
        assert "Errno" not in sentence
    assert after == before


# --- what the table holds -----------------------------------------------------------------------

GROUPS = ("network", "keys", "signer", "node", "feed", "snapshot", "devnet")
OTHERS = ("rules check", "cosign", "send", "verify", "statement")
"""Commands of everybody that are given files of others."""
ALWAYS = {INPUT, MISSING}
NEEDED = {
    "network init": {UNREADABLE, UNWRITABLE, FULL},
    "network terms": {UNREADABLE},
    "network enrol": {MODE, UNREADABLE, UNWRITABLE, FULL, GENESIS},
    "network merge": {UNREADABLE, UNWRITABLE, FULL, GENESIS},
    "network members": {UNREADABLE, MODE, PASSPHRASE, DOWN, GENESIS},
    "network propose-member": {UNREADABLE, MODE, PASSPHRASE, DOWN, GENESIS},
    "network admit": {MODE, PASSPHRASE, DOWN, GENESIS},
    "network leave": {MODE, PASSPHRASE, DOWN, GENESIS},
    "network rotate": {MODE, PASSPHRASE, DOWN, GENESIS},
    "network object": {MODE, PASSPHRASE, DOWN, GENESIS},
    "keys new": {PASSPHRASE, MODE, UNWRITABLE, FULL},
    "keys show": {MODE, UNREADABLE, OWNER},
    "keys check": {PASSPHRASE, MODE, UNREADABLE, OWNER, GENESIS},
    "keys passphrase": {PASSPHRASE, MODE, UNREADABLE, OWNER, FULL},
    "signer run": {PASSPHRASE, MODE, UNREADABLE, GENESIS},
    "signer check": {PASSPHRASE, MODE, UNREADABLE, GENESIS},
    "signer init": {PASSPHRASE, MODE, UNREADABLE, GENESIS, FULL},
    "signer init-token": {UNREADABLE},
    "node run": {PASSPHRASE, MODE, OWNER, UNREADABLE, GENESIS},
    "node check": {PASSPHRASE, MODE, OWNER, UNREADABLE, GENESIS},
    "node status": {DOWN, GENESIS},
    "node inspect": {UNREADABLE, GENESIS},
    "node backup": {UNREADABLE, UNWRITABLE, FULL, GENESIS},
    "node restore": {UNREADABLE, FULL, GENESIS},
    "node verify-store": {UNREADABLE, GENESIS},
    "feed postgres": {MODE, UNREADABLE, DOWN},
    "feed parquet": {MODE, PASSPHRASE, UNWRITABLE, FULL, DOWN, GENESIS},
    "feed check postgres": {MODE, UNREADABLE, DOWN},
    "feed check parquet": {DOWN, GENESIS},
    "devnet": {UNWRITABLE, FULL},
    "snapshot export": set(),
    "snapshot verify": set(),
    "snapshot import": set(),
    "network observe": set(),
    "rules check": {UNREADABLE},
    "cosign": {UNREADABLE},
    "send": {GENESIS},
    "verify": {UNREADABLE, GENESIS},
    "statement": set(),
}
"""Faults that a command can meet besides those that all can."""


def _known() -> set[str]:
    return {name for name in COMMANDS if name.split()[0] in GROUPS or name in OTHERS}


def test_the_table_has_every_fault_that_its_commands_can_meet() -> None:
    assert set(NEEDED) <= _known()
    held: dict[str, set[str]] = {}
    for cell in CELLS:
        held.setdefault(cell.command, set()).add(cell.fault)
    assert {name: faults | ALWAYS for name, faults in NEEDED.items()} == {
        name: faults | ALWAYS for name, faults in held.items()
    }
    assert all(faults >= ALWAYS for faults in held.values())


def test_a_command_that_the_table_lacks_refuses_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in sorted(_known() - set(NEEDED)):
        status = run([*command.split(), "--no-such-option", "--json"])
        said = Said(status, *capsys.readouterr())
        assert (said.status, said.json["code"], bool(said.json["hint"])) == (USAGE, "USAGE", True)
