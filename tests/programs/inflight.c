/* inflight STEPS: there are always messages on their way: eager and rendezvous, expected and not, between all pairs, while
 * no rank receives; every byte is checked. */
#include "judge.h"
#include <mpi.h>

#define DEEP 4
static const int sizes[DEEP] = {5, 1200, 30000, 400000};
static int me, ranks;

static uint32_t word(long k, int from, int to, int slot, long i) {
    return (uint32_t)mix((uint64_t)k << 40 ^ (uint64_t)from << 32 ^ (uint64_t)to << 24 ^ (uint64_t)slot << 20 ^ (uint64_t)i);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    long steps = argument(argc, argv, 1, 120);
    uint32_t **out = malloc(sizeof *out * ranks * DEEP), *in = malloc(4L * sizes[DEEP - 1]);
    MPI_Request *requests = malloc(sizeof *requests * ranks * DEEP);
    for (int i = 0; i < ranks * DEEP; i++) out[i] = malloc(4L * sizes[i % DEEP]);
    uint64_t hash = 1, all = 0;
    for (long k = 1; k <= steps; k++) {
        for (int to = 0; to < ranks; to++)
            for (int slot = 0; slot < DEEP; slot++) {
                uint32_t *buffer = out[to * DEEP + slot];
                for (long i = 0; i < sizes[slot]; i += 97) buffer[i] = word(k, me, to, slot, i);
                MPI_Isend(buffer, sizes[slot], MPI_UINT32_T, to, slot, MPI_COMM_WORLD, &requests[to * DEEP + slot]);
            }
        usleep(10000); /* eager ones arrive unexpected, big ones wait for their receiver */
        for (int slot = DEEP - 1; slot >= 0; slot--)
            for (int turn = 0; turn < ranks; turn++) {
                int from = (me + turn) % ranks;
                MPI_Status status;
                MPI_Probe(from, slot, MPI_COMM_WORLD, &status);
                int count;
                MPI_Get_count(&status, MPI_UINT32_T, &count);
                if (count != sizes[slot]) WRONG("rank %d step %ld: %d words from %d, not %d", me, k, count, from, sizes[slot]);
                MPI_Recv(in, count, MPI_UINT32_T, from, slot, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
                for (long i = 0; i < count; i += 97)
                    if (in[i] != word(k, from, me, slot, i)) WRONG("rank %d step %ld: word %ld of message %d from %d", me, k, i, slot, from);
                hash = mix(hash ^ in[0]);
            }
        MPI_Waitall(ranks * DEEP, requests, MPI_STATUSES_IGNORE);
        MPI_Reduce(&hash, &all, 1, MPI_UINT64_T, MPI_BXOR, 0, MPI_COMM_WORLD);
        if (me == 0) step(k, all);
    }
    if (me == 0) result(all);
    MPI_Finalize();
    return 0;
}
