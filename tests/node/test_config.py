from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner

from cute_logger.node.cli.node_command import node
from cute_logger.node.config import SETTINGS, ConfigError, NodeConfig, load_config

FLAGS = {"id": "n1", "data": "/tmp/n1", "cluster": "n1=127.0.0.1:9101"}


def load(environment: dict[str, str] | None = None, /, **flags: object) -> NodeConfig:
    return load_config(FLAGS | flags, environment or {})


def file(folder: Path, text: str) -> str:
    path = folder / "node.toml"
    path.write_text(text)
    return str(path)


def test_the_table_has_exactly_the_fields_of_the_config() -> None:
    assert sorted(SETTINGS) == sorted(field.name for field in dataclasses.fields(NodeConfig))


def test_three_settings_are_enough() -> None:
    config = load()
    assert config.id == "n1"
    assert config.cluster == {"n1": ("127.0.0.1", 9101)}
    assert config.raft == ("127.0.0.1", 9101)
    assert config.http_url == "http://127.0.0.1:8101"


@pytest.mark.parametrize("name", ["id", "data", "cluster"])
def test_what_is_missing_is_named_with_its_flag_and_variable(name) -> None:
    with pytest.raises(ConfigError, match=f"{name}: missing.*--{name}.*CUTE_{name.upper()}"):
        load(**{name: None})


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path) -> None:
    path = file(tmp_path, 'log_level = "debug"')
    environment = {"CUTE_LOG_LEVEL": "warning"}

    assert load().log_level == "info"
    assert load(config=path).log_level == "debug"
    assert load(environment, config=path).log_level == "warning"
    assert load(environment, config=path, log_level="error").log_level == "error"


def test_a_file_has_every_kind_of_value(tmp_path) -> None:
    path = file(
        tmp_path,
        """
        id = "n2"
        data = "/tmp/n2"
        http = "[::1]:8102"
        insecure = true
        drain_timeout = "2s"
        body_bytes_max = 65536
        bodies_bytes_max = "32MiB"
        [cluster]
        n1 = "127.0.0.1:9101"
        n2 = "127.0.0.1:9102"
        """,
    )

    config = load_config({"config": path}, {})

    assert config.raft == ("127.0.0.1", 9102)
    assert config.http_url == "http://[::1]:8102"
    assert config.peers == {"n1": ("127.0.0.1", 9101)}
    assert config.drain_timeout == 2000
    assert config.body_bytes_max == 65536
    assert config.bodies_bytes_max == 32 * 1024**2


def test_the_environment_names_the_file(tmp_path) -> None:
    path = file(tmp_path, 'log_format = "json"')
    assert load({"CUTE_CONFIG": path}).log_format == "json"


def test_an_unknown_key_of_the_file_names_the_nearest(tmp_path) -> None:
    with pytest.raises(ConfigError, match="'http_advertise'"):
        load(config=file(tmp_path, 'http_advertize = "http://a:1"'))


def test_a_mistyped_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'CUTE_LOG_LEVEL'"):
        load({"CUTE_LOG_LEVL": "debug"})


def test_variables_that_kubernetes_sets_are_none_of_ours() -> None:
    load({"CUTE_SERVICE_HOST": "10.0.0.1", "CUTE_PORT_9101_TCP": "tcp://…", "CUTE_SERVER": "x"})


def test_an_unreadable_file_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        load(config=str(tmp_path / "nowhere.toml"))


def test_a_file_that_is_no_toml_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="is not TOML"):
        load(config=file(tmp_path, "id = "))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("id", ""),
        ("id", "n 1"),
        ("id", 5),
        ("data", ""),
        ("cluster", "n1"),
        ("cluster", "n1=127.0.0.1"),
        ("cluster", "n1=127.0.0.1:9101,n1=127.0.0.1:9102"),
        ("cluster", "n1=127.0.0.1:9101,n2=127.0.0.1:9101"),
        ("cluster", ["n1"]),
        ("http", "127.0.0.1"),
        ("http", "127.0.0.1:0"),
        ("http", "127.0.0.1:65536"),
        ("http", "127.0.0.1:9101"),
        ("http_advertise", "127.0.0.1:8101"),
        ("http_advertise", "http://a:1/path"),
        ("insecure", "maybe"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("drain_timeout", "2min"),
        ("drain_timeout", True),
        ("body_bytes_max", "9MiB"),
        ("bodies_bytes_max", "4MiB"),
        ("polls_max", "0"),
        ("election_timeout_min", "200ms"),
        ("election_timeout_max", "400ms"),
        ("check_quorum", "50ms"),
    ],
)
def test_a_wrong_value_is_refused_under_its_name(setting, value) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**{setting: value})
    assert str(refused.value).startswith(setting)


def test_an_id_outside_of_the_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="'n9' is not one of the cluster's: n1"):
        load(id="n9")


@pytest.mark.parametrize(
    "exposed",
    [
        {"http": "0.0.0.0:8101", "http_advertise": "http://a:8101"},
        {"http": "log1.example.org:8101"},
        {"raft": "[::]:9101"},
        {"cluster": "n1=127.0.0.1:9101,n2=10.0.0.2:9101"},
    ],
)
def test_other_addresses_than_loopback_need_insecure(exposed) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        load(**exposed)
    assert load({"CUTE_INSECURE": "true"}, **exposed).insecure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_loopback_needs_no_permission(host) -> None:
    load(http=f"{host}:8101", cluster=f"n1={host}:9101")


def test_a_wildcard_address_needs_one_to_advertise() -> None:
    with pytest.raises(ConfigError, match="http_advertise"):
        load(http="0.0.0.0:8101", insecure=True)


def test_the_command_has_a_flag_for_every_setting_and_an_example() -> None:
    shown = CliRunner().invoke(node, ["--help"], env={"COLUMNS": "200"}).output
    for setting in SETTINGS.values():
        assert setting.flag in shown
        assert setting.variable in shown
    assert "cute node --id n1" in shown


def test_wrong_settings_end_the_command_with_status_2() -> None:
    result = CliRunner().invoke(node, ["--id", "n1", "--data", "x", "--cluster", "n2=127.0.0.1:1"])
    assert result.exit_code == 2
    assert "'n1' is not one of the cluster's" in result.output
