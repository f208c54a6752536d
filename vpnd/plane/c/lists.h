/* What the plane holds, told page by page.
 *
 * Owns the replies of inventory and the lists. Changes nothing. Runs in the main thread, which
 * may read the tables without their lock.
 */
#ifndef VPND_LISTS_H
#define VPND_LISTS_H

#include "requests.h"

enum wire_error handle_inventory(struct request *request);
enum wire_error handle_list_peers(struct request *request);
enum wire_error handle_list_sessions(struct request *request);
enum wire_error handle_list_macs(struct request *request);

#endif
