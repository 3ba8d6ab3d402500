# make help lists what there is to make.

WEB     := layers/site/web
PAGE    := layers/site/dist/index.html
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Vite's dependencies install with npm 11; an older npm fetches that one for the call.
NPM     := $(if $(filter 11 12 13,$(firstword $(subst ., ,$(shell npm --version 2>/dev/null)))),npm,npx --yes npm@11)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## build everything and run all five layers in one process
	bin/gochat up

.PHONY: build
build: page ## build the page and bin/gochat
	CGO_ENABLED=0 go build -tags nomsgpack -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/gochat ./cmd/gochat

# What runs in containers. OFFLINE=1 makes the images from Debian's packages, on machines that reach no registry.
COMPOSE = $(if $(shell docker compose version 2>/dev/null),docker compose,docker-compose) $(if $(OFFLINE),--env-file docker/offline/images.env) \
	-p gochat$(if $(OFFLINE),-offline) -f docker/compose.yml $(addprefix --profile ,$(PROFILES))

HTTPS_PORT ?= 8443
export PUBLIC_ORIGIN ?= https://localhost:$(HTTPS_PORT)
export PUBLIC_WEBSOCKET ?= wss://localhost:$(HTTPS_PORT)/ws

.PHONY: image
image: $(if $(OFFLINE),page) ## build the image gochat:latest; OFFLINE=1 without a registry
	$(if $(OFFLINE),VERSION=$(VERSION) docker/offline/build.sh gochat,DOCKER_BUILDKIT=1 docker build -f docker/Dockerfile --build-arg VERSION=$(VERSION) -t gochat:latest .)

.PHONY: up
up: $(if $(GOCHAT_IMAGE),,image) ## the whole platform in containers; PROFILES='observability rabbitmq kafka', SCALE='--scale connect=3', QUEUE_DRIVER, OFFLINE=1
	$(if $(OFFLINE),docker/offline/build.sh etcd redis postgres rabbitmq nginx prometheus)
	docker/secrets.sh
	$(COMPOSE) up -d $(SCALE)
	@docker/wait.sh gochat$(if $(OFFLINE),-offline)
	@echo "gochat is at $(PUBLIC_ORIGIN)/ (its certificate is its own); tcp at $${TCP_PORT:-7001}, with TLS at $${TCP_TLS_PORT:-7443}"

.PHONY: down
down: ## stop what make up has started; what is stored stays (make down VOLUMES=-v: not)
	$(COMPOSE) --profile observability --profile rabbitmq --profile kafka down $(VOLUMES)

.PHONY: page
page: $(PAGE) ## build the chat page

$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	cd $(WEB) && $(NPM) ci
	@touch $@

$(PAGE): $(WEB)/node_modules/.package-lock.json $(shell find $(WEB) -path $(WEB)/node_modules -prune -o -type f -not -name screenshot.png -print)
	cd $(WEB) && $(NPM) run build
	@touch $@

.PHONY: setup
setup: ## install what the tests talk to (Debian packages; needs root if any is missing)
	bash .ci/setup

.PHONY: test
test: setup check ## set up, check and test everything; what CI runs
	bash .ci/test

.PHONY: check
check: page ## formatting, vet, staticcheck, types of the page
	@test -z "$$(gofmt -l cmd dashboards docker e2e layers migrations observability)" || { gofmt -l cmd dashboards docker e2e layers migrations observability; echo "gofmt these"; exit 1; }
	go vet ./... && go vet -tags e2e ./e2e
	go tool staticcheck ./... && go tool staticcheck -tags e2e ./e2e
	cd dashboards && go vet ./... && go tool staticcheck ./...
	cd docker/k8s && go vet ./...
	cd docker/observability/test && go vet ./...
	cd $(WEB) && $(NPM) run lint

.PHONY: e2e
e2e: setup page ## the suite that drives containers; RUN=NAME for those of that name
	RUN='$(RUN)' bash .ci/e2e

.PHONY: faults
faults: setup page ## kill every part under load; FAULTS_SEED and FAULTS_ROUNDS go through it again, or longer
	go test -race -count=1 -v -timeout 30m -run 'TestFaults|TestUpKilled|TestRedisWiped|TestQueueAway|TestReconnectStorm' ./layers

.PHONY: dashboards
dashboards: setup ## write the Grafana dashboards anew, and check them and the rules
	cd dashboards && go run ./generate && go test -count=1 ./generate ./check

.PHONY: previews
previews: setup page ## draw the dashboards of a system under load anew, for the README
	cd dashboards && DASHBOARDS_PREVIEWS=$(CURDIR)/dashboards/previews go test -count=1 -run 'TestPreviews$$' ./live

.PHONY: screenshot
screenshot: page ## make the README's picture of the page anew
	LAYERS_TEST_SCREENSHOT=$(CURDIR)/$(WEB)/screenshot.png go test -count=1 -run 'TestLooks$$' ./layers

.PHONY: bench
bench: ## Go benchmarks, ready for benchstat
	go test -run '^$$' -bench . -benchmem -timeout 60m ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin layers/site/dist/assets layers/site/dist/*.html $(WEB)/node_modules
