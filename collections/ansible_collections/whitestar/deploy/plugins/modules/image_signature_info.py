#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say by which digest a release was signed, or refuse it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_signature_info
short_description: Refuse a release that was not signed by who may sign it
description:
  - Has Sigstore's C(cosign) verify the signature of the image that a registry has under the name of a release. Holds
    its signed provenance to a repository, a reference and a builder. Of a release that is a directory, it has the
    signed provenance of its source verified.
  - Runs on the controller for images, and on the target for a directory. Nothing is changed.
version_added: 1.1.0
author: The Titanic team (@whitestar)
options:
  verify:
    description: Who must have signed, and what the provenance must say.
    type: dict
    required: true
    suboptions:
      key: {description: "File with the public key, or the name of a key service's key.", type: str}
      identity: {description: "Who has signed, as the certificate has it; with O(verify.issuer).", type: str}
      issuer: {description: Who has vouched for that identity., type: str}
      repository: {description: The source repository that the provenance must name., type: str}
      ref: {description: "The git reference that it must name, such as refs/heads/main.", type: str}
      builder: {description: The builder that it must name., type: str}
      provenance: {description: "File with the signed provenance, of a release that is a directory.", type: str}
      program: {description: "The program cosign, where it is not on the path.", type: str}
  kind: {description: What the release is., type: str, choices: [image, directory], required: true}
  context: {description: Directory of the project., type: path, required: true}
  requirements: {description: "Requirements file, of a directory.", type: path}
  exclude:
    description: Shell patterns of names or relative paths in O(context) that are no part of a release.
    type: list
    elements: str
    default: []
  dockerfile: {description: "Dockerfile, of an image.", type: path}
  build_arguments: {description: "Its build arguments, of an image.", type: dict, default: {}}
  platforms: {description: "Its platforms, of an image.", type: list, elements: str, default: []}
  repository: {description: "Name of the image without tag, with its registry.", type: str}
  login:
    description: Who may read the registry. The credentials of the controller's docker client are used if not set.
    type: dict
    suboptions:
      username: {description: The account., type: str, required: true}
      password: {description: Its password or token., type: str, required: true}
  identity: {description: Set by the action plugin., type: str}
attributes:
  check_mode: {description: Nothing is ever changed., support: full}
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Verify the signature
  whitestar.deploy.image_signature_info:
    kind: image
    context: service
    dockerfile: Dockerfile
    repository: registry.example.org/titanic
    verify: {key: cosign.pub, repository: https://git.example.org/titanic, ref: refs/heads/main}
"""

RETURN = r"""
reference:
  description: The image by the digest that was signed; empty for a directory.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.release.signature import (
    OPTION,
    SignatureError,
    require_source,
    source_digest,
    verified_image,
)


def main() -> None:
    """Run the module."""
    path = {"type": "path"}
    words = {"type": "list", "elements": "str", "default": []}
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "verify": OPTION,
            "kind": {"type": "str", "choices": ["image", "directory"], "required": True},
            "context": path | {"required": True},
            "requirements": path,
            "exclude": words,
            "dockerfile": path,
            "build_arguments": {"type": "dict", "default": {}},
            "platforms": words,
            "repository": {"type": "str"},
            "login": {"type": "dict", "options": {"username": text, "password": text | {"no_log": True}}},
            "identity": {"type": "str"},
        },
        required_if=[("kind", "image", ["repository", "identity"]), ("kind", "directory", ["requirements"])],
        supports_check_mode=True,
    )
    options, reference = module.params, ""
    try:
        if options["kind"] == "image":
            name = f"{options['repository']}:{options['identity']}"
            reference = verified_image(name, options["verify"], options["login"])
        else:
            project, requirements = Path(options["context"]), Path(options["requirements"])
            require_source(source_digest(project, requirements, options["exclude"]), options["verify"])
    except (SignatureError, OSError, ValueError) as error:
        module.fail_json(msg=f"Refused before anything was touched:\n{error}")
    module.exit_json(changed=False, reference=reference)


if __name__ == "__main__":
    main()
