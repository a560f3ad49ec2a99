/* pingpong COUNT: round trips of 8 bytes and of 64 KiB between two ranks, best of fifteen. */
#include "judge.h"
#include <mpi.h>

#define ROUNDS 15

static double round_trips(char *bytes, int length, long count, int me) {
    double begun = now_s();
    for (long i = 0; i < count; i++) {
        if (me == 0) MPI_Send(bytes, length, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
        MPI_Recv(bytes, length, MPI_CHAR, 1 - me, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (me == 1) MPI_Send(bytes, length, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
    }
    return now_s() - begun;
}

int main(int argc, char **argv) {
    static char bytes[64 << 10];
    int me;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    long count = argument(argc, argv, 1, 100000);
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double took = round_trips(bytes, 8, count, me) + round_trips(bytes, sizeof bytes, count / 10, me);
        if (took < best) best = took;
    }
    if (me == 0) printf("SECONDS %.6f\n", best);
    MPI_Finalize();
    return 0;
}
