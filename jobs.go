package keyturn

import (
	"context"
	"iter"
	"net/url"
	"strconv"

	"github.com/keyturn/keyturn/api"
)

// JobFilter narrows Jobs. Its zero value is the newest page of all jobs.
type JobFilter struct {
	State string // queued, running, paused, cancelled, failed or done; empty for every one
	After string // the Next of the page before
}

// Jobs is a page of jobs, newest first. Needs job.read.
func (c *Client) Jobs(ctx context.Context, f JobFilter) (api.JobList, error) {
	q := url.Values{}
	set(q, "state", f.State)
	set(q, "after", f.After)
	return read[api.JobList](ctx, c, route("jobs")+query(q))
}

// Job is one job by id. Codes: not_found.
func (c *Client) Job(ctx context.Context, id string) (api.Job, error) {
	return read[api.Job](ctx, c, route("jobs", id))
}

// JobFailures is a page of a job's dead-letter list: limit rows (0 for the server's default) from offset.
func (c *Client) JobFailures(ctx context.Context, id string, offset, limit int) (api.JobFailureList, error) {
	q := url.Values{}
	if offset > 0 {
		q.Set("offset", strconv.Itoa(offset))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return read[api.JobFailureList](ctx, c, route("jobs", id, "failures")+query(q))
}

// PauseJob has a job stop after the batch it is at. Needs job.control, as the three that follow. Codes: wrong_state.
func (c *Client) PauseJob(ctx context.Context, id string) (api.Job, error) {
	return c.controlJob(ctx, id, "pause")
}

// ResumeJob lets a paused job go on where it stopped, or one that waits for its next attempt try now.
func (c *Client) ResumeJob(ctx context.Context, id string) (api.Job, error) {
	return c.controlJob(ctx, id, "resume")
}

// CancelJob ends a job after the batch it is at; what is done stays done.
func (c *Client) CancelJob(ctx context.Context, id string) (api.Job, error) {
	return c.controlJob(ctx, id, "cancel")
}

// RetryJob takes up a failed job, or the rows on the dead-letter list of a finished one, again; one that waits for its
// next attempt tries now.
func (c *Client) RetryJob(ctx context.Context, id string) (api.Job, error) {
	return c.controlJob(ctx, id, "retry")
}

func (c *Client) controlJob(ctx context.Context, id, verb string) (api.Job, error) {
	return post[api.Job](ctx, c, route("jobs", id, verb), nil)
}

// WatchJob yields the job now and at every change that the server reports, until it is paused, cancelled, failed or
// done, or ctx ends. An error is the last thing it yields.
func (c *Client) WatchJob(ctx context.Context, id string) iter.Seq2[api.Job, error] {
	return stream[api.Job](ctx, c, route("jobs", id, "watch"))
}
