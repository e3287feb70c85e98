# What can be asked of this checkout. Each target makes what it needs first; nothing is done twice.
# ARGS goes to the command a target runs: make up ARGS='--check --diff', ARGS=-v for every task; make test ONLY=service runs one step.

.DEFAULT_GOAL := help
ARGS ?=
ONLY ?=
INVENTORY ?= inventories/local
# Which target may go; that of another inventory has to be named.
CONFIRM ?= local
# What a pipeline says besides the inventory: the image and who must have signed it, and its accounts with the cluster and the registry.
ACCOUNT = $(if $(TITANIC_KUBECONFIG),-e @.ci/account.yml)
LOGIN = $(if $(REGISTRY_TOKEN),-e @.ci/login.yml)
PIPELINE = -e @.ci/variables.yml $(ACCOUNT) $(LOGIN)
PLAN ?= titanic.plan.json
OPERATION ?=
# cosign is found on the path.
SIGNED = PATH="$$(dirname "$$(bin/run deploy python -m bin.cosign)"):$$PATH"
LAB := /var/lib/titanic-lab/engine/environment

.PHONY: help up status stop start down lab lab-down cluster cluster-down test test-fast test-full bench docs lock clean \
	prepare summary findings secrets licences audit cosign image sign sign-source \
	workflows account plan apply release smoke rollback drift operate

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

up: ## deploy: from this clone to the API serving on 127.0.0.1:5000
	@bin/run deploy ansible-playbook site.yml -i $(INVENTORY) $(ARGS)

status: ## which release runs, its processes, ledger and rows
	@bin/run deploy ansible-playbook site.yml -i $(INVENTORY) --tags status $(ARGS)

stop: ## stop what `make up` made and keep all of it: data, secrets, releases
	@bin/run deploy ansible-playbook site.yml -i $(INVENTORY) --tags stop $(ARGS)

start: ## start it again as it was
	@bin/run deploy ansible-playbook site.yml -i $(INVENTORY) --tags start $(ARGS)

down: ## stop and remove what `make up` made, data included (another INVENTORY is named again: CONFIRM=prod)
	@bin/run deploy ansible-playbook site.yml -i $(INVENTORY) --tags teardown -e titanic_confirm_teardown=$(CONFIRM) $(ARGS)

lab: ## a Docker engine, base images and a registry on this machine; as root on Debian
	@bin/run deploy ansible-playbook playbooks/lab-up.yml $(ARGS)

lab-down: ## remove what `make lab` made, containers and images included
	@bin/run deploy ansible-playbook playbooks/lab-down.yml $(ARGS)

cluster: lab ## a Kubernetes cluster beside that engine; built once, in about ten minutes, with Go 1.26
	@bin/run deploy ansible-playbook playbooks/cluster-up.yml $(ARGS)

cluster-down: ## remove what `make cluster` made, volumes included; the engine stays
	@bin/run deploy ansible-playbook playbooks/cluster-down.yml $(ARGS)

test: ## run everything that can be tested on this machine (ONLY=step runs one; ONLY=list names them)
	@bin/run bench python -m tests.suite $(ONLY) $(ARGS)

test-fast: ## for daily work, in about a minute: linters on what this branch has changed, mypy, the unit tests
	@bin/run bench python -m tests.suite fast

# The last commit with the names of 1.0.0, which deployments may still be of.
UPGRADE_FROM ?= 97da1e90

test-full: ## what takes hours, one after the other: 20 releases and rollbacks at 200 requests a second, 20 kills, an upgrade, workflows
	@TESTS_LANES=1 TESTS_SWITCH_ROUNDS=20 TESTS_SWITCH_RATE=200 TESTS_SWITCH_ALL=kubernetes TESTS_DATABASE_KILLS=20 TESTS_ROTATIONS=20 \
		TESTS_UPGRADE_FROM=$(UPGRADE_FROM) TESTS_WORKFLOWS_ALL=1 bin/run bench python -m tests.suite full

workflows: ## run the workflows that deploy, by act on the lab's engine: good and bad commits, under load
	@TESTS_WORKFLOWS_ALL=1 bin/run bench python -m tests.suite workflows

release: account ## deploy a release that was built and signed before (TITANIC_IMAGE, TITANIC_SIGNER_KEY), as cd.yml does
	@$(SIGNED) bin/run deploy ansible-playbook site.yml -i $(INVENTORY) $(PIPELINE) $(ARGS)

plan: account ## write what `make release` would do to the file PLAN, which somebody reads before `make apply` does it
	@$(SIGNED) bin/run deploy ansible-playbook playbooks/plan.yml -i $(INVENTORY) $(PIPELINE) -e titanic_plan=$(abspath $(PLAN)) $(ARGS)

apply: account ## do what the plan says, or refuse
	@$(SIGNED) bin/run deploy ansible-playbook site.yml -i $(INVENTORY) $(PIPELINE) -e titanic_plan=$(abspath $(PLAN)) $(ARGS)

smoke: account ## ask a deployment for each promise that can be asked for over HTTP
	@bin/run deploy ansible-playbook site.yml -i $(INVENTORY) $(ACCOUNT) --tags verify $(ARGS)

rollback: account ## go back to the release before, or to a recorded one (TO=release)
	@bin/run deploy ansible-playbook playbooks/roll-back.yml -i $(INVENTORY) $(ACCOUNT) $${TO:+-e @.ci/rollback.yml} $(ARGS)

drift: account ## what differs from what was applied; the exit status is 2 where something does
	@bin/run deploy ansible-playbook playbooks/find-drift.yml -i $(INVENTORY) $(ACCOUNT) $(ARGS)

operate: ## one of rollback, drift and smoke, as OPERATION says
	@$(MAKE) --no-print-directory $(or $(filter rollback drift smoke,$(OPERATION)),no-such-operation)

account: # the kubeconfig that TITANIC_KUBECONFIG holds, where it holds one, for its owner alone
	@[ -z "$$TITANIC_KUBECONFIG" ] || { umask 077; mkdir -p .state; printenv TITANIC_KUBECONFIG > .state/kubeconfig; }

prepare: ## install what the tests take for granted and a bare Debian lacks; as root
	@.ci/prepare

summary: ## what the last run of the suite did, as Markdown: outcomes, times, tests left out, findings
	@bin/run bench python -m tests.job_summary

findings: ## what ruff, zizmor and gitleaks find, as SARIF in .reports/sarif
	@bin/run bench python bin/findings.py

secrets: ## look for secrets in the whole history and in the files as they are
	@bin/run bench python -m tests.suite lint-secrets

licences: ## the licence of each package that is locked, and whether it may be used here
	@bin/run bench python bin/licences.py $(ARGS)

audit: ## known vulnerabilities of what is locked, asked of OSV; "not scanned" where it cannot be reached
	@bin/run bench python bin/audit.py $(ARGS)

cosign: ## the path of Sigstore's cosign, which is fetched from Debian where there is none
	@bin/run deploy python -m bin.cosign

image: ## build the image of this checkout and push it, as INVENTORY says; .reports/image.json tells which it is
	@bin/run deploy ansible-playbook playbooks/build-image.yml -i $(INVENTORY) $(LOGIN) \
		$(if $(TITANIC_IMAGE),-e titanic_image_repository=$(TITANIC_IMAGE)) $(ARGS)

sign: ## sign that image and attest its provenance and bill of materials; by COSIGN_KEY, or by a workflow's identity
	@bin/run deploy python -m bin.image sign

sign-source: ## attest the source of a release of the local provider, in service.sigstore.json
	@bin/run deploy python -m bin.image sign-source

bench: ## measure the service beside two others, in one run, and draw the plot; then a million rows beside COPY, backups beside pg_basebackup
	@bin/run bench python -m bench $(ARGS)
	@bin/run bench python -m bench.seed
	@bin/run bench python -m bench.backup
	@-[ ! -f $(LAB) ] || . $(LAB); bin/run bench python -m bench.compose
	@-[ ! -f $(LAB) ] || . $(LAB); bin/run bench python -m bench.kubernetes

docs: ## write the generated parts of the documentation: variables, roles, playbooks, promises, figures
	@bin/run test python bin/docs.py $(ARGS)

lock: ## resolve requirements/*.in to the newest versions allowed
	@bin/run test python bin/lock.py $(ARGS)

clean: ## remove what was made here: .venv, caches, reports (not what `make up` deployed)
	rm -rf .venv .reports .mypy_cache .ruff_cache .pytest_cache .ansible .hypothesis
