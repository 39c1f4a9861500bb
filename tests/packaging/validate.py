"""Every manifest of a file is one that Kubernetes takes: `validate.py FILE`."""

import sys

import kubernetes_validate
import yaml

count = 0
with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
for document in text.split("\n---\n"):
    try:
        manifest = yaml.safe_load(document)
    except yaml.YAMLError as error:
        sys.exit(f"{error}\n{document}")
    if not isinstance(manifest, dict) or "kind" not in manifest:
        continue
    for version in ("1.25", "1.30"):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{manifest['kind']} {manifest['metadata']['name']}, Kubernetes {version}: {error}")
    count += 1
if count < 20:
    sys.exit(f"only {count} manifests")
print(f"{count} manifests")
