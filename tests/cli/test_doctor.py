"""`tenios doctor`: what would be used; no phone can ring."""

import pytest

NUMBER = "+498005556677"


def test_doctor_tells_what_is_set_and_never_what_to(configured, environment, tenios):
    environment.delenv("SSL_CERT_FILE", raising=False)
    (facts,) = tenios("doctor", "--json").events
    assert (facts["base_url"], facts["access_key"], facts["config_id"]) == (configured, "set", "set")
    assert (facts["transport"], facts["proxy"], facts["trust_store"]) == ("pool", "none", "none, plain http")
    assert facts["tenios_async"][0].isdigit()


def test_doctor_without_a_key_tells_the_rest_and_is_2(tenios):
    done = tenios("doctor")
    assert done.code == 2
    assert "https://api.tenios.com" in done.out
    assert "not set" in done.out
    assert "TENIOS_ACCESS_KEY" in done.err


def test_doctor_asks_once_for_a_call_and_rings_nobody(configured, tenios, service):
    tenios("init", NUMBER)
    done = tenios("doctor", "--id", 10)
    assert done.code == 0
    assert service.polls == {10: 1}
    assert service.inits == {NUMBER: 1}


def test_doctor_with_a_wrong_key_names_both_causes(configured, environment, tenios):
    environment.setenv("TENIOS_ACCESS_KEY", "wrong")
    done = tenios("doctor", "--id", 10)
    assert done.code == 3
    assert "access key" in done.err
    assert "callback configuration id" in done.err


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"HTTPS_PROXY": "http://user:hidden@proxy.example:3128"}, "http://proxy.example:3128"),
        ({"ALL_PROXY": "proxy.example"}, "http://proxy.example"),
        ({"HTTPS_PROXY": "http://proxy.example:port"}, "not a URL"),
        ({"HTTPS_PROXY": "http://user:hidden@:9"}, "http://:9"),
        ({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "api.tenios.com"}, "none, by NO_PROXY"),
    ],
)
def test_doctor_names_the_proxy_without_its_login(environment, tenios, variables, proxy):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert tenios("doctor", "--json").events[0]["proxy"] == proxy


def test_doctor_names_the_trust_store(environment, tenios, tmp_path):
    environment.delenv("SSL_CERT_FILE", raising=False)
    assert tenios("doctor", "--json").events[0]["trust_store"] == "certifi"
    environment.setenv("SSL_CERT_FILE", str(tmp_path))
    assert tenios("doctor", "--json").events[0]["trust_store"] == f"{tmp_path} (SSL_CERT_FILE)"
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
    assert tenios("doctor", "--json").events[0]["trust_store"].startswith("not there: ")


def test_doctor_names_a_package_that_is_not_there(environment, tenios):
    environment.setattr("tenios_async.cli.doctor._PACKAGES", ("no-such-package",))
    assert tenios("doctor", "--json").events[0]["no-such-package"] == "not installed"


def test_doctor_refuses_a_proxy_that_cannot_be_used(environment, tenios):
    environment.setenv("TENIOS_ACCESS_KEY", "KEY")
    environment.setenv("HTTPS_PROXY", "ftp://proxy.example")
    done = tenios("doctor")
    assert done.code == 2
    assert "ftp://proxy.example" in done.out
    assert "HTTPS_PROXY" in done.err
