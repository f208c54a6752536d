/* The command line of vpnd-plane: what it may say, and what is wrong with it. */
#ifndef VPND_OPTIONS_H
#define VPND_OPTIONS_H

#include <stdbool.h>

struct options {
    const char *listen_path;
    const char *standby_path; /* of the socket of the plane to stand by for */
    const char *aead;
    int control_fd; /* -1: none */
};

/* True to go on; else *status is the exit status, and what there was to say is said. */
bool options_parse(int count, char **arguments, struct options *options, int *status);

/* Says on standard error how the program is called. */
void options_usage(void);

#endif
