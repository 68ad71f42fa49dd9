# rowkeeper: build with PGXS against any server-dev package of PostgreSQL 15 to 18.
#   make && make install && make installcheck
EXTENSION   = rowkeeper
MODULE_big  = rowkeeper
EXTVERSION  = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" rowkeeper.control)

SOURCES     = $(sort $(wildcard src/*.c src/*/*.c))
OBJS        = $(SOURCES:.c=.o)
OWN_HEADERS = $(wildcard src/*.h src/*/*.h)
PG_CPPFLAGS = -I$(CURDIR)/src -DRK_EXTENSION_VERSION='"$(EXTVERSION)"'

SQL_PARTS   = $(sort $(wildcard sql/[0-9]*.sql))
DATA_built  = rowkeeper--$(EXTVERSION).sql
DATA        = $(wildcard sql/updates/rowkeeper--*--*.sql)
EXTRA_CLEAN = rowkeeper--$(EXTVERSION).sql results output_iso tmp_check log

REGRESS        = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS   = --inputdir=test
ISOLATION      = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=pgcrypto --load-extension=rowkeeper
TAP_TESTS      = 1
PROVE_TESTS    = test/t/*.pl

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

rowkeeper--$(EXTVERSION).sql: $(SQL_PARTS) rowkeeper.control
	{ printf '%s\n' '\echo Use "CREATE EXTENSION rowkeeper" to load this file. \quit'; cat $(SQL_PARTS); } > $@

$(OBJS): $(OWN_HEADERS)
