/* Becomes a program as systemd starts it: descriptors from 3 on, LISTEN_PID its own number.
 *
 * launcher PROGRAM [DESCRIPTOR…], which stand well above their places.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **arguments) {
    char number[16];
    for (int i = 2; i < count; i++) {
        int from = atoi(arguments[i]);
        if (dup2(from, 3 + i - 2) < 0 || close(from) < 0) {
            perror("launcher: dup2");
            return 126;
        }
    }
    snprintf(number, sizeof(number), "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
    char *const command[] = {arguments[1], NULL};
    execv(arguments[1], command);
    perror(arguments[1]);
    return 127;
}
