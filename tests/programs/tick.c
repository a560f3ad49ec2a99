/* tick STEPS: as small as a process gets: a step every millisecond. */
#include "judge.h"

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 1000);
    uint64_t hash = 1;
    for (long k = 1; k <= steps; k++) {
        hash = mix(hash);
        usleep(1000);
        step(k, hash);
    }
    result(hash);
    return 0;
}
