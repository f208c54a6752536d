/* Sessions come from vpnd and are taken back.
 *
 * Owns the requests install_session and retire_session. Refuses to know how keys were agreed.
 * Runs in the main thread.
 */
#ifndef VPND_INSTALL_H
#define VPND_INSTALL_H

#include "requests.h"

enum wire_error handle_install_session(struct request *request);
enum wire_error handle_retire_session(struct request *request);

#endif
