// Package migrations holds the schema, step by step, for each database: goose files with an Up and a Down part,
// numbered alike, so that a step has one meaning in both. A step that was released is never changed.
package migrations

import "embed"

// FS has the directories postgres and sqlite.
//
//go:embed postgres/*.sql sqlite/*.sql
var FS embed.FS
