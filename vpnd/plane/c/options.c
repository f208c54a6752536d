#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

static void usage(FILE *out) {
    fputs("usage: vpnd-plane (--control-fd N | --listen PATH) [--aead ipsec-mb|openssl]\n"
          "       vpnd-plane --standby PATH [--aead ipsec-mb|openssl]\n"
          "       vpnd-plane --version\n",
          out);
}

void options_usage(void) {
    usage(stderr);
}

static bool parse_fd(const char *text, int *fd) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *text == '\0' || *end != '\0' || value < 0 || value > 65535) {
        return false;
    }
    *fd = (int)value;
    return true;
}

bool options_parse(int count, char **arguments, struct options *options, int *status) {
    static const struct option known[] = {{"control-fd", required_argument, NULL, 'c'},
                                          {"listen", required_argument, NULL, 'l'},
                                          {"standby", required_argument, NULL, 's'},
                                          {"aead", required_argument, NULL, 'a'},
                                          {"version", no_argument, NULL, 'v'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    *options = (struct options){.control_fd = -1};
    *status = EX_USAGE;
    for (int found; (found = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (found) {
        case 'c':
            if (!parse_fd(optarg, &options->control_fd)) {
                fprintf(stderr, "vpnd-plane: --control-fd: not a descriptor: %s\n", optarg);
                return false;
            }
            break;
        case 'l':
            options->listen_path = optarg;
            break;
        case 's':
            options->standby_path = optarg;
            break;
        case 'a':
            options->aead = optarg;
            break;
        case 'v':
            puts("vpnd-plane " VPND_VERSION);
            *status = EXIT_SUCCESS;
            return false;
        case 'h':
            usage(stdout);
            *status = EXIT_SUCCESS;
            return false;
        default:
            usage(stderr);
            return false;
        }
    }
    int ways = (options->control_fd >= 0) + (options->listen_path != NULL) +
               (options->standby_path != NULL);
    if (optind != count || ways > 1) {
        usage(stderr);
        return false;
    }
    return true;
}
