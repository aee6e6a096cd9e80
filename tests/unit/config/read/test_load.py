from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trustme

from ai_ticket_daemon.config import (
    BackendKind,
    BackendRole,
    Config,
    ConfigError,
    Dialect,
    FdBind,
    LogLevel,
    PipelineConfig,
    Problem,
    Secret,
    ServerConfig,
    TcpBind,
    UnixBind,
    load_config,
    warnings,
)

if TYPE_CHECKING:
    from pathlib import Path

SERVER = '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "ai-ticket.conf"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> Problem:
    """Return the only problem of a file, which must be a problem of this very file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    (problem,) = caught.value.problems
    assert problem.source == str(path)
    return problem


def test_the_smallest_file_gives_the_defaults_and_one_server(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SERVER), {})
    assert config.backends.servers == (ServerConfig(name="primary", url="http://127.0.0.1:5001"),)
    defaults = Config()
    assert config.http == defaults.http
    assert config.pipeline == PipelineConfig()
    assert config.http.bind == (TcpBind("127.0.0.1", 5000),)
    assert config.metrics.bind == TcpBind("0.0.0.0", 9464)


def test_every_type_of_value_arrives_as_its_python_type(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    pair = tmp_path / "pair.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pair))
    text = f"""
        [http]
        bind = ["[::1]:5000", "unix:/run/ai-ticket/http", "fd://3", "localhost:0"]
        trusted_proxies = ["10.0.0.0/8", "::1"]
        tls_cert = "{pair}"
        tls_key = "{pair}"
        [pipeline]
        drain_seconds = 1
        [log]
        level = "debug"
        [[backends.server]]
        name = "llama"
        url = "https://gpu.example:8443/api/"
        role = "primary"
        kind = "openai"
        dialect = "openai-completions"
        password_file = "{password}"
        model = "tiny"
        [[backends.server]]
        name = "standby"
        url = "http://[::1]:5001"
        role = "standby"
    """
    config = load_config(write(tmp_path, text), {})
    assert [str(bind) for bind in config.http.bind] == [
        "[::1]:5000",
        "unix:/run/ai-ticket/http",
        "fd://3",
        "localhost:0",
    ]
    assert [type(bind) for bind in config.http.bind] == [TcpBind, UnixBind, FdBind, TcpBind]
    assert [str(network) for network in config.http.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert config.http.tls_cert == pair
    assert isinstance(config.pipeline.drain_seconds, float)
    assert config.log.level is LogLevel.DEBUG
    llama, standby = config.backends.servers
    assert llama == ServerConfig(
        name="llama",
        url="https://gpu.example:8443/api",
        kind=BackendKind.OPENAI,
        dialect=Dialect.OPENAI_COMPLETIONS,
        password=Secret("correct horse"),
        model="tiny",
    )
    assert standby.role is BackendRole.STANDBY


def test_a_file_with_windows_line_ends_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, SERVER.replace("\n", "\r\n") + "max_in_flight = 0\r\n")
    assert refusal(path).line == 4


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    problem = refusal(tmp_path / "none.conf")
    assert problem.message == "the file cannot be read: No such file or directory"
    assert str(problem) == f"{tmp_path}/none.conf: {problem.message}"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).message == "is a directory; name the conf file itself"


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert refusal(path).message == "is not a regular file; name the conf file itself"


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, SERVER) / "more"
    assert refusal(path).message == "the file cannot be read: Not a directory"


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.conf"
    path.symlink_to(path)
    assert refusal(path).message.startswith("the file cannot be read: Too many levels")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, SERVER + "#" * 1024 * 1024)
    assert refusal(path).message == "the file is larger than 1048576 bytes"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"# one\n\0", 2, "the file holds NUL bytes; it is damaged or not a text file"),
        (b"# one\n# two\n# \xe9\n", 3, "the file is not UTF-8 text"),
        (b"\xef\xbb\xbf# one\n", 1, "the file begins with a byte order mark; save it without"),
        (
            b"a = " + b"[" * 100_000,
            None,
            "not valid TOML: a number is too long or the nesting too deep",
        ),
    ],
)
def test_a_file_that_is_not_text_is_refused(
    tmp_path: Path, content: bytes, line: int | None, message: str
) -> None:
    problem = refusal(write(tmp_path, content))
    assert (problem.line, problem.message) == (line, message)


def test_a_password_file_may_not_be_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = write(tmp_path, f'{SERVER}password_file = "{pipe}"\n')
    assert refusal(path).message == "is not a regular file"


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff", b"a\tb", b"x" * 4097])
def test_a_password_file_holds_one_line_of_printable_ascii(tmp_path: Path, content: bytes) -> None:
    password = tmp_path / "password"
    password.write_bytes(content)
    problem = refusal(write(tmp_path, f'{SERVER}password_file = "{password}"\n'))
    assert problem.path == "backends.server[0].password_file"
    assert problem.message.startswith("the file must hold the password and nothing else")


@pytest.mark.parametrize("around", [" ", "\t", "\r\n", "\n\n", " \t\r\n"])
def test_blanks_and_line_ends_around_a_password_are_no_part_of_it(
    tmp_path: Path, around: str
) -> None:
    password = tmp_path / "password"
    password.write_text(f"{around}correct horse{around}", newline="")
    path = write(tmp_path, f'{SERVER}password_file = "{password}"\n')
    assert load_config(path, {}).backends.servers[0].password == Secret("correct horse")


def test_without_a_file_the_missing_server_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^configuration: backends\.server: no server is"):
        load_config(None, {})


def test_the_command_line_goes_over_environment_and_file(tmp_path: Path) -> None:
    path = write(tmp_path, f'[log]\nlevel = "info"\n{SERVER}')
    assert load_config(path, {}).log.level == "info"
    assert load_config(path, {"LOG_LEVEL": "warning"}).log.level == "warning"
    config = load_config(path, {"LOG_LEVEL": "warning"}, {"log.level": "error"})
    assert config.log.level == "error"


def test_a_mistake_on_the_command_line_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path, f'[http]\nbind = ["127.0.0.1:1"]\n{SERVER}')
    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, {"http.bind": ["127.0.0.1:x"], "http.limit": 1})
    assert str(caught.value).splitlines() == [
        (
            "command line: http.limit: is not a known key; known here: bind, max_body_bytes, "
            "max_memory_bytes, header_timeout_seconds, body_timeout_seconds, max_connections, "
            "max_connections_per_address, trusted_proxies, record_client_addresses, tls_cert, "
            "tls_key"
        ),
        "command line: http.bind[0]: the port must be a whole number from 0 to 65535",
    ]


def test_an_empty_string_stands_for_none(tmp_path: Path) -> None:
    text = f'[telemetry]\notlp_endpoint = ""\n{SERVER}model = ""\npassword_file = ""\n'
    config = load_config(write(tmp_path, text), {})
    assert config.telemetry.otlp_endpoint is None
    assert config.backends.servers[0].model is None
    assert config.backends.servers[0].password is None


def test_an_open_address_and_the_store_in_memory_deserve_a_warning() -> None:
    environ = {"KOBOLDCPP_API_URL": "http://127.0.0.1:5001"}
    memory = {"store.url": "memory:"}
    everywhere: dict[str, object] = {"http.bind": ["0.0.0.0:5000"]}
    assert warnings(load_config(None, environ)) == []
    reachable, forgetful = warnings(load_config(None, environ, everywhere | memory))
    assert reachable.startswith("0.0.0.0:5000 can be reached from other hosts")
    assert forgetful == "store.url: events are kept in memory and are lost at a restart"
    local = ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/run/x", "fd://3"]
    assert warnings(load_config(None, environ, {"http.bind": local})) == []
    assert warnings(load_config(None, environ, {"http.bind": local, **memory})) == [forgetful]
    elsewhere = {"http.bind": ["gpu.example:80", "[::]:80"]}
    assert len(warnings(load_config(None, environ, elsewhere))) == 2
