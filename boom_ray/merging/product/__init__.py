"""The merged model as a folder: weights written by strips, everything else, the model card."""
