/* SPDX-License-Identifier: BSD-3-Clause */
/* `tapwire detach` of a disk that tapwired has put a mirror to: tapwired takes it away, and puts none back for now. */
#ifndef TW_CLI_DETACH_SERVICE_H
#define TW_CLI_DETACH_SERVICE_H

#include "base/error.h"
#include <stdbool.h>

/* state: the service's directory; NULL: where one is running, if any. who, vdev: see tw_guests_detach(). *done is false
 * when no service has to do with the disk. Waits until the mirror is gone. */
struct tw_error *tw_detach_by_service(
	const char *state, const char *who, const char *vdev, bool *done) TW_MUST_CHECK;

#endif
