# make record-master: the master beside upstream's and a bare ping-pong server; record and plot in bench/record.
# TARGET_DIR, RELEASE_DIR and RECORD_CPU come from the Makefile that includes this.

RECORD_MASTER := bench/record/$(shell date -u +%F)-$(or $(RECORD_CPU),$(shell uname -m))-master
UPSTREAM_RELEASE := 0.3.13.post1

.PHONY: record-master

record-master: ## the master beside upstream's released one, in some four minutes: record, plot, and which goals are met
	$(CARGO) build --release $(JOBS_FLAG) -p mooncake-master --bins --examples
	bash tests/interop/make_peers.sh "$(TARGET_DIR)/peers" $(UPSTREAM_RELEASE) || echo "without upstream's master, which cannot be fetched"
	upstream=$$(ls "$(TARGET_DIR)"/peers/$(UPSTREAM_RELEASE)/lib/python3*/site-packages/mooncake/mooncake_master 2>/dev/null | head -n 1); \
	LD_LIBRARY_PATH="$(TARGET_DIR)/peers/lib" "$(RELEASE_DIR)/examples/master_bench" $${upstream:+--upstream "$$upstream"} \
		--rounds 7 --slice-ms 300 --commit "$$(git rev-parse --short HEAD)" --record "$(RECORD_MASTER).csv"
	$(or $(PYTHON),python3) master/examples/master_bench/plot.py "$(RECORD_MASTER).csv" "$(RECORD_MASTER).svg"
