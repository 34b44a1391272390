"""Whether what the chart renders agrees with itself and with docs/OPERATIONS.md: settings, metrics, ports, labels, times.

    agrees.py schema VALUES_SCHEMA          the settings that values may have are those of the guide
    agrees.py objects RENDERED...           the objects of each file fit together

The fields of objects are not looked at here: validators do that, see check.
"""

import json
import re
import sys
from pathlib import Path

from ruamel.yaml import YAML

GUIDE = (Path(__file__).parents[2] / "docs/OPERATIONS.md").read_text()
# Settings that the chart makes of its own values, or that have no use in it.
OURS = set(
    "nats-url nats-url-file nats-seed nats-seed-file nats-credentials-file nats-ca-file nats-certificate-file nats-certificate-key-file postgres-url postgres-url-file admin-listen drain-timeout listen"
    " jwt-secret jwt-secret-file media-url proxy-protocol blob-store blob-store-endpoint blob-store-region blob-spool-dir".split()
)
SERVICES = {"gateway": "gateway", "fanoutWorker": "fan-out worker", "inboxWorker": "inbox worker", "media": "media"}
# What a process may need after its drain timeout: the last flush, the last spans.
AFTER_DRAIN_SECONDS = 5

wrong = []


def expect(holds, what):
    if not holds:
        wrong.append(what)


def settings():
    """The flags of each table in the guide's section on settings."""
    section = GUIDE[GUIDE.index("\n## 4. Settings") : GUIDE.index("\n## 5. ")]
    tables, table = {}, None
    for line in section.splitlines():
        if head := re.match(r"\| of (?:the )?([a-z -]+?) \| default", line):
            table = tables.setdefault(head[1], set())
        elif line.startswith("| `--") and table is not None:
            table.update(re.findall(r"`--([a-z-]+)`", line.split("|")[1]))
    return tables


def schema(path):
    values = json.loads(Path(path).read_text())["properties"]
    tables = settings()
    every = tables["every service"] - OURS
    expect(set(values["settings"]["properties"]) == every, f"settings: the guide has {sorted(every)}")
    for key, name in SERVICES.items():
        there, wanted = set(values[key]["properties"]["settings"]["properties"]), (tables[name] - OURS) | every
        for flag in sorted(there ^ wanted):
            expect(False, f"{key}.settings.{flag} is only in {'the schema' if flag in there else 'the guide'}")


def matches(selector, labels):
    def expression(one):
        value = labels.get(one["key"])
        return {"In": value in one.get("values", []), "NotIn": value not in one.get("values", [])}[one["operator"]]

    same = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return same and all(expression(one) for one in selector.get("matchExpressions", []))


def objects(path):
    all_of_it = [one for one in YAML(typ="safe").load_all(Path(path).read_text()) if one]
    pods = {}
    for one in all_of_it:
        name = (one["kind"], one["metadata"]["name"])
        expect(len(name[1]) <= 63, f"{name}: longer than a label may be")
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            expect(name not in pods, f"{name}: twice")
            pods[name] = one["spec"]["template"]
    ours = {name: pod for name, pod in pods.items() if pod["metadata"]["labels"].get("app.kubernetes.io/part-of") == "tidings"}
    expect(len([name for name in ours if name[0] == "Deployment"]) == len(SERVICES), "not one Deployment a service")
    for name, pod in ours.items():
        check_pod(name, pod["spec"], all_of_it)
    for one in all_of_it:
        check_references(one, all_of_it, pods)


def check_pod(name, spec, all_of_it):
    flags = set().union(*settings().values())
    container = spec["containers"][0]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    expect(len(environment) == len(container["env"]), f"{name}: a variable is given twice")
    for variable in environment:
        if variable.startswith("TIDINGS_"):
            flag = variable.removeprefix("TIDINGS_").lower().replace("_", "-")
            expect(flag in flags, f"{name}: {variable} is not a setting of the guide")
    expect("TIDINGS_POSTGRES_URL" in environment, f"{name}: does not know where Postgres is")
    check_login(name, container["name"], environment, spec.get("volumes", []))
    # Kubernetes puts in only what stands before.
    order = list(environment)
    for variable, value in environment.items():
        for used in re.findall(r"\$\((\w+)\)", value or ""):
            expect(used in order[: order.index(variable)], f"{name}: {variable} names {used}, which does not stand before it")
    security, pod_security = container["securityContext"], spec["securityContext"]
    expect(security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}, f"{name}: may too much")
    expect(pod_security["runAsUser"] == 65532, f"{name}: not the image's user")
    volumes = {one["name"] for one in spec.get("volumes", [])}
    expect({one["name"] for one in container.get("volumeMounts", [])} == volumes, f"{name}: volumes that nobody mounts, or the reverse")
    accounts = {one["metadata"]["name"] for one in all_of_it if one["kind"] == "ServiceAccount"} | {"default"}
    expect(spec["serviceAccountName"] in accounts, f"{name}: no service account {spec['serviceAccountName']}")
    if name[0] == "Job":
        return
    expect(container["args"] == [container["name"]] and name[1].endswith("-" + container["name"]), f"{name}: runs something else")
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    least = sleep + int(environment.get("TIDINGS_DRAIN_TIMEOUT") or 20) + AFTER_DRAIN_SECONDS
    expect(spec["terminationGracePeriodSeconds"] >= least, f"{name}: is killed before it has drained")
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    for flag, port in [("TIDINGS_LISTEN", "clients"), ("TIDINGS_ADMIN_LISTEN", "admin")]:
        if flag in environment or port in ports:
            expect(environment.get(flag, "").endswith(f":{ports.get(port)}"), f"{name}: {flag} is not the port {port}")
    for probe, asked in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
        expect(container[probe]["httpGet"] == {"path": asked, "port": "admin"}, f"{name}: {probe}")


def check_login(name, component, environment, volumes):
    """Who uses NATS has its own user there and no other's; media does not use it."""
    logins = {flag: value for flag, value in environment.items() if flag in ("TIDINGS_NATS_SEED_FILE", "TIDINGS_NATS_CREDENTIALS_FILE")}
    keys = [item for volume in volumes if volume["name"] == "nats-login" for item in volume["secret"]["items"]]
    if component == "media":
        used = [variable for variable in environment if variable.startswith("TIDINGS_NATS")]
        expect(not used and not keys, f"{name}: does not use NATS, and has {used or keys}")
        return
    expect("TIDINGS_NATS_URL" in environment, f"{name}: does not know where NATS is")
    expect(len(logins) == len(keys) <= 1, f"{name}: logins {logins}, files {keys}")
    for (flag, file), item in zip(logins.items(), keys):
        expect(file == f"/etc/tidings/nats/{item['path']}", f"{name}: {flag} is not the file that is mounted")
        expect(item["key"] == component + (".nk" if "SEED" in flag else ""), f"{name}: has the login of {item['key']}")


def check_references(one, all_of_it, pods):
    kind, spec = one["kind"], one.get("spec", {})
    name = (kind, one["metadata"]["name"])
    named = {(other["kind"], other["metadata"]["name"]) for other in all_of_it}
    chosen = None
    if kind == "Service" and spec.get("selector"):
        chosen = {"matchLabels": spec["selector"]}
    elif kind == "NetworkPolicy":
        chosen = spec["podSelector"]
    elif kind in ("Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        chosen = spec["selector"]
    if chosen is not None:
        found = {pod: template for pod, template in pods.items() if matches(chosen, template["metadata"]["labels"])}
        count = len(SERVICES) if kind == "PodMonitor" else 1
        expect(len(found) == count, f"{name}: chooses {sorted(found)}")
        wanted = [port.get("targetPort", port["port"]) for port in spec.get("ports", [])]
        wanted += [endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", [])]
        wanted += [port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]] if kind == "NetworkPolicy" else []
        for template in found.values():
            there = {port["name"] for container in template["spec"]["containers"] for port in container.get("ports", [])}
            for port in wanted:
                expect(not isinstance(port, str) or port in there, f"{name}: no port {port}")
    if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        target = ("Deployment", spec["scaleTargetRef"]["name"])
        expect(target in named, f"{name}: scales {target}, which is not there")
        scaled = [other for other in all_of_it if (other["kind"], other["metadata"]["name"]) == target]
        expect(all("replicas" not in other["spec"] for other in scaled), f"{name}: its Deployment has replicas of its own")
        metrics = re.findall(r"tidings_\w+", json.dumps(spec))
        expect(all(f"`{metric}`" in GUIDE for metric in metrics), f"{name}: {metrics} are not metrics of the guide")
        triggers = {trigger["name"] for trigger in spec.get("triggers", [])}
        formula = spec.get("advanced", {}).get("scalingModifiers", {}).get("formula")
        if formula:
            expect(set(formula.split(" + ")) == triggers, f"{name}: the formula is not the sum of the triggers")
    if kind == "Ingress":
        for rule in spec["rules"]:
            for route in rule["http"]["paths"]:
                expect(("Service", route["backend"]["service"]["name"]) in named, f"{name}: no such Service")
    if kind == "PrometheusRule":
        alerts = YAML(typ="safe").load((Path(__file__).parents[1] / "prometheus/alerts.yaml").read_text())
        expect(spec == alerts, f"{name}: not deploy/prometheus/alerts.yaml")
    if kind == "ConfigMap" and "-dashboard-" in name[1]:
        for file, text in one["data"].items():
            expect(json.loads(text)["panels"], f"{name}: {file} is no dashboard")


def main():
    what, *paths = sys.argv[1:]
    for path in paths:
        before = len(wrong)
        {"schema": schema, "objects": objects}[what](path)
        wrong[before:] = [f"{Path(path).name}: {line}" for line in wrong[before:]]
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)


main()
