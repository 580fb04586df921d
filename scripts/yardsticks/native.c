/* A network and Adam written by hand in C, as a yardstick for one core: shapes are constants, nothing is checked.

   gcc -O3 -march=native -ffast-math -DWIDTHS=16,10,20,15,26 -DLAYERS=4 -DWIDEST=26 -DBATCH=32 -DROWS=9600 \
       native.c -lm && ./a.out 50        prints the steps of 50 epochs, and their seconds

   Arrays are [unit][row], so that the rows of a mini-batch fill the vector registers. Each epoch shuffles the rows,
   each step gathers its own, and keeps its loss. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ALIGNED __attribute__((aligned(64)))

static const int width[LAYERS + 1] = {WIDTHS};
static float h[LAYERS + 1][WIDEST * BATCH] ALIGNED, g_h[2][WIDEST * BATCH] ALIGNED;
static float x[ROWS][WIDEST] ALIGNED;
static int y[ROWS], order[ROWS];

/* W h + b, W [n_in][n_out] */
static void dense(const float *restrict W, const float *restrict b, const float *restrict in, float *restrict out,
                  int n_in, int n_out, int relu) {
    for (int j = 0; j < n_out; j++) {
        float sum[BATCH];
        for (int n = 0; n < BATCH; n++) sum[n] = b[j];
        for (int i = 0; i < n_in; i++) {
            float w = W[i * n_out + j];
            for (int n = 0; n < BATCH; n++) sum[n] += w * in[i * BATCH + n];
        }
        for (int n = 0; n < BATCH; n++) out[j * BATCH + n] = relu && sum[n] <= 0 ? 0 : sum[n];
    }
}

/* e^z for z <= 0, to about 4 digits: 2^whole by its bits, 2^fraction by a polynomial */
static inline float fast_exp(float z) {
    float t = z * 1.44269504f, whole = floorf(t), f = t - whole, scale;
    float p = 1 + f * (.6931472f + f * (.2402265f + f * (.0555041f + f * .0096181f)));
    int bits = whole < -126 ? 0 : ((int)whole + 127) << 23;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

/* Softmax and cross-entropy: the mean loss; into g its gradient by the logits z */
static float loss_of(const float *restrict z, float *restrict g, const int *restrict rows) {
    int classes = width[LAYERS];
    float most[BATCH], sum[BATCH], labelled[BATCH], loss = 0;
    for (int n = 0; n < BATCH; n++) {
        most[n] = z[n];
        sum[n] = 0;
        labelled[n] = z[y[rows[n]] * BATCH + n];
    }
    for (int j = 1; j < classes; j++)
        for (int n = 0; n < BATCH; n++) most[n] = fmaxf(most[n], z[j * BATCH + n]);
    for (int j = 0; j < classes; j++)
        for (int n = 0; n < BATCH; n++) sum[n] += g[j * BATCH + n] = fast_exp(z[j * BATCH + n] - most[n]);
    for (int n = 0; n < BATCH; n++) {
        loss += logf(sum[n]) + most[n] - labelled[n];
        sum[n] = 1 / (sum[n] * BATCH);
    }
    for (int j = 0; j < classes; j++)
        for (int n = 0; n < BATCH; n++) g[j * BATCH + n] *= sum[n];
    for (int n = 0; n < BATCH; n++) g[y[rows[n]] * BATCH + n] -= 1.f / BATCH;
    return loss / BATCH;
}

/* The gradients of W and b, and into out that of the layer's input, where one is wanted */
static void backward(const float *restrict W, const float *restrict in, const float *restrict g, float *restrict g_W,
                     float *restrict g_b, float *restrict out, int n_in, int n_out) {
    for (int j = 0; j < n_out; j++) {
        float sum = 0;
        for (int n = 0; n < BATCH; n++) sum += g[j * BATCH + n];
        g_b[j] = sum;
    }
    for (int i = 0; i < n_in; i++)
        for (int j = 0; j < n_out; j++) {
            float sum = 0;
            for (int n = 0; n < BATCH; n++) sum += in[i * BATCH + n] * g[j * BATCH + n];
            g_W[i * n_out + j] = sum;
        }
    if (!out) return;
    for (int i = 0; i < n_in; i++) {
        float sum[BATCH] = {0};
        for (int j = 0; j < n_out; j++)
            for (int n = 0; n < BATCH; n++) sum[n] += W[i * n_out + j] * g[j * BATCH + n];
        for (int n = 0; n < BATCH; n++) out[i * BATCH + n] = in[i * BATCH + n] > 0 ? sum[n] : 0;
    }
}

static unsigned long long state = 88172645463325252ULL;
static unsigned random_number(void) { /* xorshift */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 32);
}
static float uniform(void) { return random_number() / 2147483648.f - 1; }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int count, char **words) {
    int epochs = count > 1 ? atoi(words[1]) : 1, begin[LAYERS], parameters = 0, steps = 0;
    for (int k = 0; k < LAYERS; k++) {
        begin[k] = parameters;
        parameters += (width[k] + 1) * width[k + 1];
    }
    float *theta[4]; /* parameters, gradient, two moments */
    for (int k = 0; k < 4; k++) {
        theta[k] = aligned_alloc(64, (parameters * sizeof(float) + 63) / 64 * 64);
        for (int i = 0; i < parameters; i++) theta[k][i] = k ? 0 : .2f * uniform();
    }
    float *restrict P = theta[0], *restrict g = theta[1], *restrict m = theta[2], *restrict v = theta[3];
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < width[0]; i++) x[r][i] = uniform();
        y[r] = random_number() % width[LAYERS];
        order[r] = r;
    }
    float *losses = malloc(sizeof(float) * epochs * (ROWS / BATCH));

    double start = now();
    for (int epoch = 0; epoch < epochs; epoch++) {
        for (int r = ROWS - 1; r > 0; r--) {
            int other = random_number() % (r + 1), row = order[r];
            order[r] = order[other];
            order[other] = row;
        }
        for (int first = 0; first + BATCH <= ROWS; first += BATCH) {
            const int *rows = order + first;
            for (int n = 0; n < BATCH; n++)
                for (int i = 0; i < width[0]; i++) h[0][i * BATCH + n] = x[rows[n]][i];
            for (int k = 0; k < LAYERS; k++)
                dense(P + begin[k], P + begin[k] + width[k] * width[k + 1], h[k], h[k + 1], width[k], width[k + 1],
                      k < LAYERS - 1);
            float *now_g = g_h[0], *next_g = g_h[1];
            losses[steps++] = loss_of(h[LAYERS], now_g, rows);
            for (int k = LAYERS - 1; k >= 0; k--) {
                float *g_W = g + begin[k];
                backward(P + begin[k], h[k], now_g, g_W, g_W + width[k] * width[k + 1], k ? next_g : NULL, width[k],
                         width[k + 1]);
                float *swap = now_g;
                now_g = next_g;
                next_g = swap;
            }
            float lr = .005f / (1 - powf(.9f, steps)), correction = 1 / (1 - powf(.999f, steps));
            for (int i = 0; i < parameters; i++) {
                m[i] = .9f * m[i] + .1f * g[i];
                v[i] = .999f * v[i] + .001f * g[i] * g[i];
                P[i] -= lr * m[i] / (sqrtf(v[i] * correction) + 1e-8f);
            }
        }
    }
    double seconds = now() - start;
    fprintf(stderr, "last loss %f\n", losses[steps - 1]);
    printf("%d %.9f\n", steps, seconds);
    return 0;
}
