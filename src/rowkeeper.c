/*
 * rowkeeper.c
 *
 * The module's magic block and its start: settings first, because features
 * read them, then core, then each feature, then the worker. Nothing else lives here.
 */
#include "rowkeeper.h"

#include "utils/guc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	rk_core_init();
	rk_audit_init();
	rk_stamp_init();
	rk_soft_delete_init();
	rk_tenant_init();
	rk_partition_init();
	rk_worker_init();

	MarkGUCPrefixReserved("rowkeeper");
}
