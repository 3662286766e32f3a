package envelope

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
)

// FAULTS row 17: does the time that opening a CBC ciphertext takes tell where it was changed? Two classes of ciphertexts
// under a wrong MAC, one with padding that would have been right, one with padding that would have been wrong, in random
// order; Welch's t-test over the times below the 90th percentile (Reparaz, Balasch, Verbauwhede 2017, "dudect"). A soak
// run on a quiet machine fails above 4.5; make test only reports, since a clock on a busy machine proves nothing.
func TestCampaignCBCTiming(t *testing.T) {
	soak := os.Getenv("KEYTURN_SOAK") != ""
	samples := 10_000
	if soak {
		samples = 1_000_000
	}
	k := testKey(t, SuiteCBC)
	var blobs [2][]byte
	blobs[0] = withPadding(append(bytes.Repeat([]byte{'x'}, 31), 1))
	blobs[1] = withPadding(append(bytes.Repeat([]byte{'x'}, 31), 99))
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	work := make([]byte, len(blobs[0]))
	times := [2][]float64{make([]float64, 0, samples), make([]float64, 0, samples)}
	for range samples * 2 {
		class := random.IntN(2)
		copy(work, blobs[class])
		work[len(work)-1-random.IntN(32)] ^= byte(1 + random.IntN(255))
		start := time.Now()
		_, err := k.Open(nil, work, nil)
		took := float64(time.Since(start))
		if err == nil || err.Error() != errOpen.Error() {
			t.Fatalf("a wrong MAC gives %v", err)
		}
		times[class] = append(times[class], took)
	}
	runtime.KeepAlive(work)
	score := math.Abs(welch(below90(times[0]), below90(times[1])))
	t.Logf("campaign: CBC padding oracle: seed %d, %d openings, |t| = %.2f (rule: below 4.5)", seed, samples*2, score)
	if soak && score >= 4.5 {
		t.Errorf("|t| = %.2f: the time tells the classes apart", score)
	}
}

// below90 drops what the scheduler did.
func below90(x []float64) []float64 {
	sorted := append([]float64{}, x...)
	slices.Sort(sorted)
	return sorted[:len(sorted)*9/10]
}

func welch(a, b []float64) float64 {
	meanA, varA := moments(a)
	meanB, varB := moments(b)
	spread := math.Sqrt(varA/float64(len(a)) + varB/float64(len(b)))
	if spread == 0 {
		return 0
	}
	return (meanA - meanB) / spread
}

func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, variance
}

// The test of the test: a difference that is there is seen, one that isn't is not.
func TestWelch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := func(shift float64) (x []float64) {
		for range 10_000 {
			x = append(x, 100+10*random.NormFloat64()+shift)
		}
		return x
	}
	if same := math.Abs(welch(draw(0), draw(0))); same > 4.5 {
		t.Errorf("equal classes score %.2f", same)
	}
	if other := math.Abs(welch(draw(0), draw(2))); other < 4.5 {
		t.Errorf("classes 2%% apart score %.2f", other)
	}
}
